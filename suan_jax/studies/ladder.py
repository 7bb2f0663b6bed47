"""The ladder of sizes: each rung has about three times the body parameters of the one below it.

The even rungs from 2 on are the models' own grades, 0 at rung 2, 1 at rung 4 and so on; the others fill the
steps and go on below, in smaller steps under rung 0, where the tables of biases, about 2 thousand parameters,
are most of a body. At equal rungs the bodies of different models are of about equal size: on the synthetic
log the largest is at most 1.22 times the smallest; 1.32 times at rungs -2, -1 and 4, and 2.1 times at rung 2,
where each model has its own size.

    rung         -2    -1    0    1    2     3     4     5     6    7    8    9    10    11   12
    grade                              0           1           2         3         4          5
    parameters   2.7k  4.2k 10k  30k  80k  220k  540k  1.5M  4.2M  12M  33M  82M  200M  460M  1.1B

This project's decision, as the SUAN paper's table of grades is not public.
"""

from __future__ import annotations

from typing import Any

from suan_jax.errors import UserError, nearest
from suan_jax.models import registered

_Sizes = dict[int, tuple[int, int, int]]  # rung to layers, width, heads
_TRANSFORMER: _Sizes = {
    -2: (1, 4, 2),
    -1: (1, 8, 2),
    0: (1, 16, 2),
    1: (1, 36, 2),
    3: (2, 80, 4),
    5: (3, 176, 4),
    7: (6, 352, 8),
    9: (10, 720, 16),
    11: (14, 1440, 16),
}
_BETWEEN: dict[str, _Sizes] = {
    "suan": _TRANSFORMER,
    "light_suan": _TRANSFORMER,
    "hstu": {
        -2: (1, 6, 2),
        -1: (1, 12, 2),
        0: (1, 28, 2),
        1: (2, 48, 2),
        3: (3, 112, 4),
        5: (4, 272, 4),
        7: (8, 544, 8),
        9: (14, 1072, 16),
        11: (20, 2144, 16),
    },
    "bst": {
        -2: (1, 8, 2),
        -1: (1, 14, 2),
        0: (1, 24, 2),
        1: (1, 48, 2),
        3: (2, 92, 4),
        5: (4, 176, 4),
        7: (7, 376, 8),
        9: (13, 720, 16),
        11: (18, 1456, 16),
    },
    "loopctr": {
        -2: (1, 3, 1),
        -1: (1, 4, 2),
        0: (1, 8, 2),
        1: (1, 16, 2),
        3: (1, 44, 4),
        5: (1, 120, 4),
        7: (1, 336, 8),
        9: (1, 880, 16),
        11: (1, 2096, 16),
    },
}
MODELS = tuple(_BETWEEN)
RUNGS = range(-2, 13)
WIDTH = 48  # of SUAN's grade 0 on the synthetic log, at which RATE is the best
RATE = 2.2e-3
POWER = 1.0  # of SUAN, by configs/rates.py: .98 (.28 to 1.68), see notebooks/results; taken for all models
MOST = 3.0  # of (WIDTH / width)^power: at width 4 a share of 12 lost .007 of AUC to 3, 1 lost .012 (one seed)
WARMUP = 0.05  # share of the steps; without it SUAN of four layers and more failed to train


def rung(
    model: str, index: int, rate: float = RATE, power: float = POWER, hidden: bool = True
) -> dict[str, Any]:
    """The fields of a model at a rung, for `suan_jax.studies.SweepConfig.cells`.

    Args:
      model: its name.
      index: the rung.
      rate: peak learning rate of dense parameters at width 48.
      power: the rate falls with width D as (48 / D)^power, and is at most three times that of width 48; 0 is
        one rate for all, 1 what Yang et al. 2022 (arXiv 2203.03466) derive for Adam and hidden matrices.
        configs/rates.py measures it.
      hidden: whether that is the rate of hidden matrices alone, as they derive, or of all dense parameters,
        those of the head among them, which has one size.

    Raises:
      UserError: if there is no such model or rung on the ladder.
    """
    if model not in _BETWEEN:
        raise UserError(f"{model!r} is not on the ladder, the nearest is {nearest(model, MODELS)!r}")
    if index not in RUNGS:
        raise UserError(f"there is no rung {index} of {model}, expected {RUNGS[0]} to {RUNGS[-1]}")
    fields: dict[str, Any] = {"model.name": model}
    if index in _BETWEEN[model]:
        layers, width, heads = _BETWEEN[model][index]
        fields |= {"model.layers": layers, "model.width": width, "model.heads": heads}
    else:
        grade = index // 2 - 1
        # Grade 0 may be as wide as the log's features, for which the rate was found.
        width = registered()[model].grades[grade].width or WIDTH
        fields |= {"model.grade": grade}
    share = min((WIDTH / width) ** power, MOST)
    if not hidden:
        return fields | {"optimizer.learning_rate": float(f"{rate * share:.3g}")}
    return fields | {"optimizer.learning_rate": rate, "optimizer.hidden_rate": float(f"{share:.3g}")}


def rule(rate: float = RATE, power: float = POWER, hidden: bool = True) -> str:
    """The rule of `rung` in words, for `SweepConfig.rule`."""
    of = "learning rate of hidden matrices" if hidden else "learning rate"
    others = f", of the others {rate:g}" if hidden else ""
    share = f"min(({WIDTH} / width)^{power:g}, {MOST:g})"
    return f"{of} {rate:g} * {share}{others}; batch, tables' rate and examples the same"
