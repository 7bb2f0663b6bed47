"""Several laws side by side: one for each kind of run in a table, such as each model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from suan_jax.errors import UserError, nearest
from suan_jax.figures import can_draw
from suan_jax.files import write_json
from suan_jax.notice import notice
from suan_jax.scaling.forms import form_named
from suan_jax.scaling.report import Report, as_json, columns_of, fit_points, made
from suan_jax.scaling.runs import RunPoints, read_table, table_points
from suan_jax.table import print_table


@dataclasses.dataclass(frozen=True)
class Series:
    """Laws of several kinds of runs.

    Attributes:
      by: columns that tell the kinds apart.
      reports: kind to its law.
      refused: kind to the sentence that says why there is none.
      loose: kind without a law to its points, as far as they could be read.
    """

    by: str
    reports: dict[str, Report]
    refused: dict[str, str]
    loose: dict[str, RunPoints]


def fit_series(runs: Path, x: str, y: str, form: str, by: str, where: str = "", compute: str = "") -> Series:
    """Fits one law to each kind of run.

    Args:
      runs: as in `suan_jax.scaling.report.fit_runs`, and so are x, y, form, where and compute.
      by: columns, separated by commas; a kind is called by their values, those that are empty left out.

    Raises:
      UserError: if the runs are not right, or no kind has a law.
    """
    table = read_table(runs)
    names = [name.strip() for name in by.split(",")]
    for name in names:
        if name not in table.columns:
            raise UserError(f"{runs} has no column {name!r}, the nearest is {nearest(name, table.columns)!r}")
    several = len(names) > 1
    reports, refused, loose = {}, {}, {}
    for values, part in table.group_by(names, maintain_order=True):
        known = [(name, value) for name, value in zip(names, values, strict=True) if value is not None]
        label = ", ".join(f"{name} {value}" if several else str(value) for name, value in known)
        points = None
        try:
            points = table_points(part, runs, form_named(form), columns_of(x), y, where, compute)
            reports[label] = fit_points(points, columns_of(x), y, form, where)
        except UserError as error:
            refused[label] = str(error)
            if points is not None and len(points.y):
                loose[label] = points
    if not reports:
        raise UserError(f"no kind of run by {by} has a law: {'; '.join(refused.values())}")
    return Series(by, reports, refused, loose)


def print_series(series: Series) -> None:
    """Prints the parameters of every law with their intervals."""
    first = next(iter(series.reports.values()))
    rows = [
        [label, name, each.value, each.low, each.high, report.law.r2, len(report.law.points.y)]
        for label, report in series.reports.items()
        for name, each in report.law.parameters.items()
    ]
    columns = (series.by, "parameter", "value", "low", "high", "R2", "points")
    print_table(f"{first.y} by {series.by}, one law each", columns, rows)
    for label, why in series.refused.items():
        print(f"no law of {label}: {why}")
    for label, report in series.reports.items():
        for sentence in report.warnings:
            print(f"note on {label}: {sentence}")


def write_series(series: Series, out: Path) -> None:
    """Writes series.json and, where matplotlib is installed, series.png and series.svg.

    Raises:
      UserError: if they cannot be written.
    """
    laws = {label: as_json(report) for label, report in series.reports.items()}
    write_json(made(out) / "series.json", {"by": series.by, "laws": laws, "refused": series.refused})
    if len(next(iter(series.reports.values())).x) > 1:
        notice("laws of several columns are not drawn side by side: each has a figure with --where")
    elif can_draw():
        from suan_jax.scaling import figure_series

        figure_series.draw(series, out)
