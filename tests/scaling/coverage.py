"""How often 95 % intervals hold what was planted: 8 sizes, 3 seeds, four decades, normal noise.

    python -m tests.scaling.coverage [DRAWS]

Of 500 draws, each parameter is to be held in 90 to 99 %. Besides, a further run ten times as large as the
largest fitted one is to lie within its interval.
"""

import sys

import numpy as np

from suan_jax.scaling import fit
from tests.scaling import planted

RESAMPLES = 200
NOISES = {"power": 1e-3, "power of a loss": 2e-3}


def coverage(kind: str, draws: int, seed: int = 0) -> dict[str, float]:
    """Share of draws whose quoted interval holds each parameter, and "next run" a run beyond the fit."""
    inside = {name: 0 for name in (*planted.AUC, "next run")}
    for draw in range(seed, seed + draws):
        random = np.random.default_rng(10_000 + draw)
        known = dict(planted.AUC)
        if kind == "power":
            x, y = planted.auc(seed=draw)
            beyond = planted.AUC["E"] - planted.AUC["A"] * (10 * x.max()) ** -planted.AUC["alpha"]
            beyond += random.normal() * NOISES[kind]
        else:
            known["E"] = 1 - known["E"]
            x, y = planted.auc(noise=0)
            y = (1 - y) * np.exp(random.normal(size=len(y)) * NOISES[kind])
            beyond = known["E"] + known["A"] * (10 * x.max()) ** -known["alpha"]
            beyond *= np.exp(random.normal() * NOISES[kind])
        law = fit(x, y, "power", resamples=RESAMPLES, seed=draw)
        for name, value in known.items():
            inside[name] += law.parameters[name].low <= value <= law.parameters[name].high
        low, high = law.interval([10 * x.max()])
        inside["next run"] += bool(low[0] <= beyond <= high[0])
    return {name: count / draws for name, count in inside.items()}


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    for form in NOISES:
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in coverage(form, number).items())
        print(f"{form}, {number} draws: {shares}")
