"""How often 95 % intervals hold what was planted: 3 seeds of each size, four decades, normal noise.

    python -m tests.scaling.coverage [--draws=500] [--sizes=8]

Of 500 draws, each parameter is to be held in 90 to 99 % by the interval that is quoted. Beside it stand the
bootstrap's and the profile's own, and a further run, ten times as large as the largest fitted one.
"""

import argparse
from collections import Counter

import numpy as np

from suan_jax.scaling import fit
from tests.scaling import planted

RESAMPLES = 200
NOISES = {"power": 1e-3, "power of a loss": 2e-3}


def coverage(kind: str, draws: int, sizes: int = 8, seed: int = 0) -> dict[str, float]:
    """Share of draws in which each interval holds what was planted.

    Returns:
      Under a parameter's name the share of the quoted interval, under "bootstrap NAME" and "profile NAME"
      that of each kind; under "next run" that of a run beyond the fit.
    """
    inside: Counter[str] = Counter()
    for draw in range(seed, seed + draws):
        random = np.random.default_rng(10_000 + draw)
        known = dict(planted.AUC)
        if kind == "power":
            x, y = planted.auc(sizes=sizes, seed=draw)
            beyond = planted.AUC["E"] - planted.AUC["A"] * (10 * x.max()) ** -planted.AUC["alpha"]
            beyond += random.normal() * NOISES[kind]
        else:
            known["E"] = 1 - known["E"]
            x, y = planted.auc(sizes=sizes, noise=0)
            y = (1 - y) * np.exp(random.normal(size=len(y)) * NOISES[kind])
            beyond = known["E"] + known["A"] * (10 * x.max()) ** -known["alpha"]
            beyond *= np.exp(random.normal() * NOISES[kind])
        law = fit(x, y, "power", resamples=RESAMPLES, seed=draw)
        for name, value in known.items():
            each = law.parameters[name]
            inside[name] += each.low <= value <= each.high
            for way in ("bootstrap", "profile"):
                low, high = getattr(each, way)
                inside[f"{way} {name}"] += low <= value <= high
        low, high = law.interval([10 * x.max()])
        inside["next run"] += bool(low[0] <= beyond <= high[0])
    return {name: count / draws for name, count in inside.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--sizes", type=int, default=8)
    arguments = parser.parse_args()
    for form in NOISES:
        found = coverage(form, arguments.draws, arguments.sizes)
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in found.items())
        print(f"{form}, {arguments.sizes} sizes, {arguments.draws} draws: {shares}")
