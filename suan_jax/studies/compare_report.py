"""A comparison as people read it: on a terminal, as Markdown and CSV, and as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from suan_jax.files import write_bytes
from suan_jax.notice import notice
from suan_jax.studies.compare import Comparison
from suan_jax.studies.runs import csv_text
from suan_jax.table import print_table

_HEADER = (
    *("model", "L", "AUC", "RelaImpr", "difference", "gAUC", "log loss"),
    *("body", "head", "embedding", "MFLOPs", "examples/s", "learning rate", "seeds"),
)


def write_comparison(comparison: Comparison, workdir: Path) -> None:
    """Writes compare.csv, compare.md and, where matplotlib is installed, compare.png and compare.svg."""
    if comparison.rows:
        write_bytes(workdir / "compare.csv", csv_text(comparison.rows).encode())
        write_bytes(workdir / "compare.md", markdown(comparison).encode())
        _draw(comparison, workdir)


def print_comparison(comparison: Comparison, workdir: Path) -> None:
    """Prints the table, and what has failed or is missing."""
    print_table(f"{workdir}", _HEADER, [_cells(row) for row in comparison.rows])
    print(_legend(comparison))
    for name, sentence in comparison.failures.items():
        print(f"failed: {name}: {sentence}")
    if comparison.missing:
        print(f"no result yet: {', '.join(comparison.missing)}")


def markdown(comparison: Comparison) -> str:
    """The table in Markdown, with a sentence on what its errors are."""
    rule = ["---", *["---:"] * (len(_HEADER) - 1)]
    lines = [_HEADER, rule, *(_cells(row) for row in comparison.rows)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{_legend(comparison)}\n"


def _legend(comparison: Comparison) -> str:
    parts = [
        "± is the standard error over seeds, in brackets that of the test examples (DeLong); differences and "
        "RelaImpr are against the row without one, paired by seed and by example",
        "* the best learning rate lies at the edge of the grid",
    ]
    if comparison.best_possible is not None:
        parts.append(f"the best possible AUC is {comparison.best_possible:.4f}")
    return "; ".join(parts) + "."


def _cells(row: dict[str, Any]) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    def spread(name: str, form: str, places: str = ".4f") -> str:
        if row[name] is None:
            return "-"
        error, test = row[f"{name}_se"], row.get(f"{name}_se_test")
        text = format(row[name], form) + ("" if error is None else f" ± {error:{places}}")
        return text if test is None else f"{text} ({test:{places}})"

    return [
        row["entry"],
        str(row["max_len"]),
        spread("auc", ".4f"),
        "-" if row["rela_impr"] is None else f"{row['rela_impr']:+.2f} %",
        spread("difference", "+.4f"),
        spread("gauc", ".4f"),
        spread("log_loss", ".4f"),
        *(f"{row[f'params_{part}']:,}" for part in ("body", "head", "embedding")),
        f"{row['flops_per_example'] / 1e6:.3g}",
        number(row["examples_per_second"], ",.0f"),
        f"{row['learning_rate']:g}" + ("*" if row["rate_at_edge"] else ""),
        str(row["seeds"]),
    ]


def _draw(comparison: Comparison, workdir: Path) -> None:
    try:
        from suan_jax.studies import compare_figure
    except ImportError:
        notice("no figure is drawn, as matplotlib is not installed: pip install 'suan-jax[figures]'")
        return
    compare_figure.draw(comparison, workdir)
