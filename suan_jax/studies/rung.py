"""The next rung of a ladder: what a law says of runs beyond those it was fitted to, and what they measure."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from suan_jax.errors import UserError
from suan_jax.files import write_json
from suan_jax.paths import make_folder
from suan_jax.runs import flat
from suan_jax.scaling.fitting import Points
from suan_jax.scaling.forms import FORMS
from suan_jax.scaling.judgement import judge_rivals
from suan_jax.scaling.report import Report, read_report
from suan_jax.scaling.runs import as_table, table_points
from suan_jax.studies.cells import Cell, check_cells, run_cells
from suan_jax.studies.sweep import CELLS, cells, collect, with_columns
from suan_jax.studies.sweep_config import SweepConfig
from suan_jax.training.setup import set_up
from suan_jax.training.summary import planned

_SLACK = 1 + 1e-9
PREDICTED = "predict.json"


@dataclasses.dataclass(frozen=True)
class Rung:
    """Predictions of one step up a ladder, and what came of them.

    Attributes:
      report: the law.
      points: one per run: cell, x, predicted, the ends low and high of the 95 % interval of ONE run and,
        where the run has finished, measured, measured_se (None where not known), error and inside.
      rivals: other forms, fitted to the same runs as the law: form, and rmse at the measured points, or the
        sentence why it is "refused".
      failures: name of a cell to what befell it.
    """

    report: Report
    points: list[dict[str, Any]]
    rivals: list[dict[str, Any]]
    failures: dict[str, str]


def next_rung(config: SweepConfig, fit: Path, workdir: Path, together: int = 1) -> Rung:
    """Predicts the cells of a sweep one step beyond a law, trains them, and compares.

    One step beyond are the cells that lie above every fitted run in a column of x, and in no column further
    above than the next value there is. Cells that the law's `where` leaves out are left out. predict.json
    holds the predictions before anything trains, and the comparison in the end.

    Args:
      config: the sweep, which goes beyond the fitted runs.
      fit: fit.json of `launch/fit.py`.
      workdir: the sweep's; the cells are the sweep's own, and join its runs.csv.
      together: most cells that train in one program.

    Raises:
      UserError: if the fit cannot be read, no cell lies beyond it, or x or where need what only training
        tells.
      Preempted: after SIGTERM; the same call again goes on.
    """
    report = read_report(fit)
    every = cells(config)
    check_cells(every, workdir / CELLS)
    chosen, x = _beyond(config, every, report)
    expected = _predictions(report, [cell.name for cell in chosen], x)
    make_folder(workdir)
    _write(Rung(report, expected, [], {}), fit, workdir)
    failures = run_cells(chosen, workdir / CELLS, together)
    rows, _ = collect(config, workdir)
    names = {point["cell"] for point in expected}
    measured = [row for row in rows if row["cell"] in names]
    if measured:
        result = Rung(report, *_compare(report, measured, workdir), failures)
    else:
        result = Rung(report, expected, [], failures)
    _write(result, fit, workdir)
    return result


def _beyond(config: SweepConfig, every: list[Cell], report: Report) -> tuple[list[Cell], np.ndarray]:
    """The cells of the next rung, and their x (n, k)."""
    plans: dict[str, dict[str, Any]] = {}
    rows = []
    for cell, fields in zip(every, config.cells, strict=True):
        alike = repr({name: value for name, value in fields.items() if name != "train.seed"})
        if alike not in plans:
            setup = set_up(cell.config)
            plans[alike] = _as_row(planned(setup, setup.abstract.params))
        rows.append(with_columns({"cell": cell.name, **plans[alike], "seed": cell.config.train.seed}, fields))
    # A column of x stands for y, which nothing is known of yet.
    known = table_points(
        as_table(rows),
        "the sweep before it is trained",
        FORMS[report.law.form],
        report.x,
        report.x[0],
        report.where,
    )
    highest = report.law.points.x.max(0) * _SLACK
    above = known.x > highest
    if not above.any():
        largest = ", ".join(f"{value:g}" for value in report.law.points.x.max(0))
        meeting = f" that meets the fit's condition {report.where!r}" if report.where else ""
        raise UserError(
            f"no cell of the sweep{meeting} lies beyond the fit, whose largest {', '.join(report.x)} is "
            f"{largest}: expected a sweep with larger cells"
        )
    next_up = np.where(above, known.x, np.inf).min(0)
    limit = np.where(np.isfinite(next_up), next_up, highest) * _SLACK
    taken = above.any(1) & (known.x <= limit).all(1)
    by_name = {cell.name: cell for cell in every}
    return [by_name[known.names[index]] for index in np.flatnonzero(taken)], known.x[taken]


def _as_row(point: dict[str, Any]) -> dict[str, Any]:
    """A planned run as runs.csv will have it; a looped model's headline."""
    row = flat(point)
    if "inferred_loops" in row:
        row["loops_inferred"] = row.pop("inferred_loops")
    return row


def _predictions(report: Report, names: list[str], x: np.ndarray) -> list[dict[str, Any]]:
    predicted = report.law.predict(x)
    low, high = report.law.interval(x)
    return [
        {
            "cell": name,
            "x": dict(zip(report.x, map(float, at), strict=True)),
            "predicted": float(value),
            "low": float(bottom),
            "high": float(top),
        }
        for name, at, value, bottom, top in zip(names, x, predicted, low, high, strict=True)
    ]


def _compare(
    report: Report, rows: list[dict[str, Any]], workdir: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Predictions beside what finished runs measured, and what rivals say of them."""
    law, form = report.law, FORMS[report.law.form]
    found = table_points(as_table(rows), workdir, form, report.x, report.y, report.where)
    points = _predictions(report, found.names, found.x)
    for index, point in enumerate(points):
        measured = float(found.y[index])
        point |= {
            "measured": measured,
            "measured_se": None if found.y_se is None else float(found.y_se[index]),
            "error": measured - point["predicted"],
            "inside": point["low"] <= measured <= point["high"],
        }
    fitted = law.points
    errors = None if fitted.y_se is None or found.y_se is None else np.append(fitted.y_se, found.y_se)
    _, group = np.unique(found.x, axis=0, return_inverse=True)
    together = Points(
        np.concatenate([fitted.x, found.x]),
        np.append(fitted.y, found.y),
        errors,
        np.append(fitted.group, fitted.group.max() + 1 + group.ravel()),
        law.rising,
    )
    held = np.arange(len(together.y)) >= len(fitted.y)
    rivals = []
    for rival in judge_rivals(form, together, held):
        outcome = rival.get("held_out") or rival
        said = {"refused": outcome["refused"]} if "refused" in outcome else {"rmse": outcome["rmse"]}
        rivals.append({"form": rival["form"], **said})
    return points, rivals


def root_mean_square(points: list[dict[str, Any]]) -> float | None:
    """Of the errors of the predictions that were measured; None if none was."""
    errors = [point["error"] for point in points if "error" in point]
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else None


def _write(rung: Rung, fit: Path, workdir: Path) -> None:
    law = rung.report.law
    write_json(
        workdir / PREDICTED,
        {
            "fit": str(fit),
            "form": law.form,
            "x": rung.report.x,
            "y": rung.report.y,
            "parameters": {name: each.value for name, each in law.parameters.items()},
            "points": rung.points,
            "rmse": root_mean_square(rung.points),
            "rivals": rung.rivals,
        },
    )
