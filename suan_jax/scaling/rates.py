"""Whether the best learning rate moves with scale: each size's optimum, and the power of size it follows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from scipy.stats import linregress
from scipy.stats import t as student

from suan_jax.errors import UserError
from suan_jax.figures import can_draw
from suan_jax.files import write_json
from suan_jax.scaling.forms import LOG_LINEAR
from suan_jax.scaling.report import made, rises
from suan_jax.scaling.runs import read_points
from suan_jax.table import print_table


@dataclasses.dataclass(frozen=True)
class Optimum:
    """The best rate at one size.

    Attributes:
      x: the size.
      rates: learning rates, ascending, (n,).
      y: mean over the runs of each rate, (n,).
      best: rate at the top (for a loss, the foot) of the parabola in ln rate through the best mean and its
        two neighbours; None where the best is at an end of the rates, so that a better one may lie beyond.
    """

    x: float
    rates: list[float]
    y: list[float]
    best: float | None


@dataclasses.dataclass(frozen=True)
class Rates:
    """Optima of several sizes.

    Attributes:
      x: name of the column of sizes.
      y: name of the column that was best.
      optima: one per size, ascending.
      power: p of best rate ∝ x^-p; None with fewer than two optima.
      ends: its 95 % interval, of the scatter of optima around the power; None with fewer than three.
    """

    x: str
    y: str
    optima: list[Optimum]
    power: float | None
    ends: tuple[float, float] | None


def find_rates(runs: Path, x: str, y: str = "auc", where: str = "") -> Rates:
    """Reads runs that differ in size and learning rate, and finds each size's best rate.

    Args:
      runs: as in `suan_jax.scaling.report.fit_runs`, with a column learning_rate, and so is where.
      x: column of sizes.
      y: column; the best is the lowest if its name ends in "loss" or "ne", else the highest.

    Raises:
      UserError: if the runs are not right, or a size has fewer than three rates.
    """
    found = read_points(runs, LOG_LINEAR, [x, "learning_rate"], y, where)
    sign = -1 if rises(y) is False else 1
    optima = [
        _optimum(size, found.x[found.x[:, 0] == size, 1], found.y[found.x[:, 0] == size], sign, x)
        for size in np.unique(found.x[:, 0])
    ]
    inside = [(np.log(each.x), np.log(each.best)) for each in optima if each.best]
    if len(inside) < 2:
        return Rates(x, y, optima, None, None)
    line = linregress(*zip(*inside, strict=True))
    reach = student.ppf(0.975, len(inside) - 2) * line.stderr if len(inside) > 2 else None
    ends = None if reach is None else (float(-line.slope - reach), float(-line.slope + reach))
    return Rates(x, y, optima, float(-line.slope), ends)


def _optimum(size: float, rate: np.ndarray, y: np.ndarray, sign: int, x: str) -> Optimum:
    rates = np.unique(rate)
    if len(rates) < 3:
        raise UserError(f"{x} {size:g} has {len(rates)} learning rates, expected at least 3")
    mean = np.array([y[rate == each].mean() for each in rates])
    top = int(np.argmax(sign * mean))
    best = None
    if 0 < top < len(rates) - 1:
        near = slice(top - 1, top + 2)
        bend, slope, _ = np.polyfit(np.log(rates[near] / rates[top]), sign * mean[near], 2)
        best = float(rates[top] * np.exp(-slope / (2 * bend))) if bend < 0 else float(rates[top])
    return Optimum(float(size), rates.tolist(), mean.tolist(), best)


def print_rates(rates: Rates) -> None:
    """Prints each size's best rate, and the power."""
    rows = [[each.x, each.best or "at the end of its rates"] for each in rates.optima]
    print_table(f"the learning rate of the best {rates.y}", (rates.x, "best rate"), rows)
    if rates.power is None:
        print("fewer than two sizes have their best rate within their rates: no power")
        return
    ends = f" (95 % interval {rates.ends[0]:.2f} to {rates.ends[1]:.2f})" if rates.ends else ""
    print(f"best rate ~ {rates.x}^-power with power {rates.power:.2f}{ends}")


def write_rates(rates: Rates, out: Path) -> None:
    """Writes rates.json and, where matplotlib is installed, rates.png and rates.svg.

    Raises:
      UserError: if they cannot be written.
    """
    write_json(made(out) / "rates.json", dataclasses.asdict(rates))
    if can_draw():
        from suan_jax.scaling import figure_rates

        figure_rates.draw(rates, out)
