"""What a sweep is: one training run, and the fields in which its cells differ."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from suan_jax.distillation import DistillConfig

Fields = dict[str, Any]


@dataclasses.dataclass
class SweepConfig(DistillConfig):
    """A sweep: the fields of a training run, which every cell shares, and what differs.

    Attributes:
      cells: for each run the fields in which it differs, such as {"model.grade": 2, "train.seed": 0}; `grid`
        makes them from axes, and several grids may be joined. A cell that sets a field of `distillation` is
        a distillation; the others are plain runs.
      rule: how settings follow scale in this sweep, in words, such as "learning rate 2e-3 · 40 / width"; it
        goes with every point into runs.csv.
    """

    job: ClassVar[str] = "launch/sweep.py"
    cells: tuple[Fields, ...] = ()
    rule: str = "all settings are the same at every scale"


def grid(axes: Mapping[str, Iterable[Any]]) -> tuple[Fields, ...]:
    """Every combination of the values of axes such as {"model.grade": (0, 1), "train.seed": range(3)}."""
    names, values = list(axes), map(list, axes.values())
    return tuple(dict(zip(names, combination, strict=True)) for combination in itertools.product(*values))
