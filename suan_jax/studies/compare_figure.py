"""The figures of a comparison: AUC with its error against the cost of an example, and by loops."""

from __future__ import annotations

import itertools
from pathlib import Path

from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from suan_jax.figures import figure, look
from suan_jax.studies.compare import Comparison


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
        _name_points(axes, rows)
        axes.set_xscale("log")
        axes.margins(x=0.16)
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


def _name_points(axes, rows: list[dict]) -> None:
    """Names beside the points, pushed apart from bottom to top where they would overlap."""
    low = min(row["auc"] for row in rows)
    span = max(max(row["auc"] for row in rows) - low, 1e-6)
    placed: list[tuple[float, float]] = []
    for row in sorted(rows, key=lambda row: row["auc"]):
        x, y = row["flops_per_example"], row["auc"]
        label = y
        while any(abs(label - other) < 0.045 * span and 0.4 < x / at < 2.5 for at, other in placed):
            label += 0.01 * span
        placed.append((x, label))
        axes.annotate(
            row["entry"],
            (x / 1e6, y),
            xytext=(x / 1e6 * 1.12, label),
            fontsize=8,
            va="center",
            parse_math=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": "0.4", "shrinkA": 0, "shrinkB": 0},
        )
