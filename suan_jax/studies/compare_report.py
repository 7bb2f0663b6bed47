"""A comparison as people read it: on a terminal, as Markdown and CSV, and as a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from suan_jax.figures import can_draw
from suan_jax.files import write_bytes
from suan_jax.runs import csv_text
from suan_jax.studies.compare import Comparison
from suan_jax.table import print_table

_HEADER = (
    *("model", "L", "AUC", "RelaImpr", "difference", "gAUC", "log loss"),
    *("body", "head", "embedding", "MFLOPs", "examples/s", "learning rate", "seeds"),
)
_LOOP_HEADER = ("model", "trained", "inferred", "AUC", "difference", "gAUC", "log loss", "MFLOPs")
_BY_LOOPS = "by the loops that a model is inferred with"


def write_comparison(comparison: Comparison, workdir: Path) -> None:
    """Writes compare.csv, compare.md and, where matplotlib is installed, compare.png and compare.svg.

    With looped models among the entries, compare_loops.csv and a figure of that name too. Every run behind
    the table is in runs.csv.
    """
    if comparison.loop_rows:
        write_bytes(workdir / "compare_loops.csv", csv_text(comparison.loop_rows).encode())
    if comparison.rows:
        write_bytes(workdir / "runs.csv", csv_text(comparison.points).encode())
        write_bytes(workdir / "compare.csv", csv_text(comparison.rows).encode())
        write_bytes(workdir / "compare.md", markdown(comparison).encode())
        _draw(comparison, workdir)


def print_comparison(comparison: Comparison, workdir: Path) -> None:
    """Prints the table, and what has failed or is missing."""
    print_table(f"{workdir}", _HEADER, [_cells(row) for row in comparison.rows])
    if comparison.loop_rows:
        print_table(_BY_LOOPS, _LOOP_HEADER, [_loop_cells(row) for row in comparison.loop_rows])
    print(_legend(comparison))
    for name, sentence in comparison.failures.items():
        print(f"failed: {name}: {sentence}")
    if comparison.missing:
        print(f"no result yet: {', '.join(comparison.missing)}")


def markdown(comparison: Comparison) -> str:
    """The tables in Markdown, with a sentence on what their errors are."""
    parts = [_markdown_table(_HEADER, map(_cells, comparison.rows))]
    if comparison.loop_rows:
        table = _markdown_table(_LOOP_HEADER, map(_loop_cells, comparison.loop_rows))
        parts += [f"{_BY_LOOPS.capitalize()}:", table]
    return "\n\n".join([*parts, _legend(comparison)]) + "\n"


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in (header, rule, *rows))
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped)


def _legend(comparison: Comparison) -> str:
    parts = [
        "± is the standard error over seeds, in brackets that of the test examples (DeLong); differences and "
        "RelaImpr are against the row without one, paired by seed and by example",
    ]
    if any(row["rate_at_edge"] for row in comparison.rows):
        parts.append("* the best learning rate is the lowest or the highest of those tried")
    if any(row["rates_left"] for row in comparison.rows):
        parts.append("† some of its learning rates have no result")
    if comparison.best_possible is not None:
        parts.append(f"the best possible AUC is {comparison.best_possible:.4f}")
    return "; ".join(parts) + "."


def _spread(row: dict[str, Any], name: str, form: str) -> str:
    """A mean with its error over seeds and, in brackets, that of the test examples, where there are any."""
    if row[name] is None:
        return "-"
    error, test = row[f"{name}_se"], row.get(f"{name}_se_test")
    text = format(row[name], form) + ("" if error is None else f" ± {error:.4f}")
    return text if test is None else f"{text} ({test:.4f})"


def _cells(row: dict[str, Any]) -> list[str]:
    speed = row["examples_per_second"]
    return [
        row["entry"],
        str(row["max_len"]),
        _spread(row, "auc", ".4f"),
        "-" if row["rela_impr"] is None else f"{row['rela_impr']:+.2f} %",
        _spread(row, "difference", "+.4f"),
        _spread(row, "gauc", ".4f"),
        _spread(row, "log_loss", ".4f"),
        *(f"{row[f'params_{part}']:,}" for part in ("body", "head", "embedding")),
        f"{row['flops_per_example'] / 1e6:.3g}",
        "-" if speed is None else f"{speed:,.0f}",
        f"{row['learning_rate']:g}" + "*" * row["rate_at_edge"] + "†" * bool(row["rates_left"]),
        str(row["seeds"]),
    ]


def _loop_cells(row: dict[str, Any]) -> list[str]:
    return [
        row["entry"],
        str(row["loops_trained"]),
        str(row["loops_inferred"]),
        _spread(row, "auc", ".4f"),
        _spread(row, "difference", "+.4f"),
        _spread(row, "gauc", ".4f"),
        _spread(row, "log_loss", ".4f"),
        f"{row['flops_per_example'] / 1e6:.3g}",
    ]


def _draw(comparison: Comparison, workdir: Path) -> None:
    if not can_draw():
        return
    from suan_jax.studies import compare_figure

    compare_figure.draw(comparison, workdir)
    if comparison.loop_rows:
        compare_figure.draw_loops(comparison, workdir)
