"""The figures of a comparison: AUC with its error against the cost of an example, and by loops."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import offset_copy

from suan_jax.figures import figure, look
from suan_jax.studies.compare import Comparison

_NAME_SIZE = 8  # points
_AXIS_POINTS = 360  # width of the axes, about
_CLOSE = 0.22  # share of the axis; the names of points that are closer stand in one column


def draw(comparison: Comparison, workdir: Path) -> None:
    """Writes compare.png and compare.svg: one point per entry that has an AUC, its name beside it."""
    rows = [row for row in comparison.rows if row["auc"] is not None]
    if not rows:
        return
    with figure(workdir / "compare") as drawn:
        axes = drawn.subplots()
        for index, row in enumerate(rows):
            x = row["flops_per_example"] / 1e6
            axes.errorbar(
                x,
                row["auc"],
                yerr=row["auc_se"],
                capsize=3,
                **look(index),
            )
        axes.set_xscale("log")
        _name_points(axes, rows)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("forward MFLOPs per example")
        seeds = max(row["seeds"] for row in rows)
        axes.set_ylabel(f"AUC, mean of {seeds} seeds ± standard error" if seeds > 1 else "AUC")


def draw_loops(comparison: Comparison, workdir: Path) -> None:
    """Writes compare_loops.png and compare_loops.svg: AUC by inferred loops, a line per looped entry.

    The other entries are horizontal lines. A depth far below every entry's headline, such as one that was not
    trained, is off the axis, so that the others can be told apart.
    """
    headlines, loop_rows = (
        [row for row in rows if row["auc"] is not None] for rows in (comparison.rows, comparison.loop_rows)
    )
    if not headlines:
        return
    lines: dict[str, list[dict]] = {}
    for row in loop_rows:
        lines.setdefault(row["entry"], []).append(row)
    with figure(workdir / "compare_loops", width=7.5) as drawn:
        axes = drawn.subplots()
        for index, (entry, rows) in enumerate(lines.items()):
            shift = 0.02 * (index - (len(lines) - 1) / 2)  # so that errors do not cover each other
            x = [row["loops_inferred"] + shift for row in rows]
            errors = [row["auc_se"] or 0.0 for row in rows]
            axes.errorbar(x, [row["auc"] for row in rows], yerr=errors, capsize=2, label=entry, **look(index))
        others = [row for row in headlines if row["entry"] not in lines]
        for row, style in zip(others, itertools.cycle(("--", ":", "-."))):
            axes.axhline(row["auc"], linestyle=style, color="0.4", linewidth=1, label=row["entry"])
        low = min(row["auc"] - (row["auc_se"] or 0.0) for row in headlines)
        high = max(row["auc"] + (row["auc_se"] or 0.0) for row in (*headlines, *loop_rows))
        span = max(high - low, 1e-4)
        axes.set_ylim(low - 0.3 * span, high + 0.1 * span)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("loops at inference")
        seeds = max(row["seeds"] for row in headlines)
        axes.set_ylabel(f"AUC, mean of {seeds} seeds ± standard error" if seeds > 1 else "AUC")
        for text in drawn.legend(loc="outside right center", fontsize=8).get_texts():
            text.set_parse_math(False)


def _name_points(axes: Axes, rows: list[dict]) -> None:
    """Names to the right of the points, pushed apart from bottom to top where they would overlap."""
    low = min(row["auc"] - (row["auc_se"] or 0.0) for row in rows)
    high = max(row["auc"] + (row["auc_se"] or 0.0) for row in rows)
    span = max(high - low, 1e-6)
    every = [row["flops_per_example"] / 1e6 for row in rows]
    first, last = _limits(every, [len(row["entry"]) for row in rows])
    axes.set_xlim(first, last)
    close = (last / first) ** _CLOSE
    beside = offset_copy(axes.transData, axes.figure, x=8, units="points")
    placed: list[tuple[float, float]] = []
    for row in sorted(rows, key=lambda row: row["auc"]):
        x, y = row["flops_per_example"] / 1e6, row["auc"]
        right = max(other for other in every if x <= other < close * x)  # so that no name covers a point
        label = y
        while any(abs(label - other) < 0.045 * span and 0.4 < right / at < 2.5 for at, other in placed):
            label += 0.01 * span
        placed.append((right, label))
        axes.annotate(
            row["entry"],
            (x, y),
            xytext=(right, label),
            textcoords=beside,
            fontsize=_NAME_SIZE,
            va="center",
            parse_math=False,
            in_layout=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": "0.4", "shrinkA": 0, "shrinkB": 0},
        )


def _limits(x: list[float], letters: list[int]) -> tuple[float, float]:
    """Ends of a logarithmic axis on which names of so many letters fit to the right of the points."""
    span = max(math.log(max(x) / min(x)), 0.25)
    left, right = math.log(min(x)) - 0.1 * span, math.log(max(x)) + 0.1 * span
    for at, count in zip(x, letters, strict=True):
        share = min((0.6 * _NAME_SIZE * count + 16) / _AXIS_POINTS, 0.8)
        right = max(right, (math.log(at) - share * left) / (1 - share))
    return math.exp(left), math.exp(right)
