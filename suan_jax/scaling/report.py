"""A law as people and programs read it: on a terminal, as fit.json, and as a figure."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from suan_jax.errors import UserError
from suan_jax.figures import can_draw
from suan_jax.files import read_json, write_json
from suan_jax.paths import make_folder
from suan_jax.progress import progress
from suan_jax.scaling.forms import form_named
from suan_jax.scaling.frontier import Frontier, frontier
from suan_jax.scaling.laws import RESAMPLES, Law, fit
from suan_jax.scaling.runs import RunPoints, read_points
from suan_jax.table import print_table


@dataclasses.dataclass(frozen=True)
class Report:
    """A law of runs.

    Attributes:
      law: what was fitted.
      x: names of the columns of x.
      y: name of the column of y.
      where: the condition that runs met; empty if there was none.
      excluded: what was left out, and why.
      warnings: the law's, and those about the runs.
      compute: FLOPs that each run's training took, (n,); None where that is not known.
      frontier: how to divide compute between N and D; None unless the form is of both, compute is known, and
        there is one.
    """

    law: Law
    x: list[str]
    y: str
    where: str
    excluded: list[dict[str, Any]]
    warnings: list[str]
    compute: np.ndarray | None
    frontier: Frontier | None


def fit_runs(runs: Path, x: str, y: str, form: str, where: str = "", compute: str = "") -> Report:
    """Fits a law to runs.

    Args:
      runs: a CSV file, a sweep's work directory, or a directory with work directories in it.
      x: columns, or SQL expressions of them, separated by commas.
      y: column; "auc" and "gauc" rise with scale, "loss" and "ne" fall, also as the last word of a name like
        "log_loss"; others do as their points do.
      form: of `suan_jax.scaling.fit`.
      where: a condition in SQL that runs must meet.
      compute: column of the FLOPs of training; train_flops, where there is one, if empty.

    Raises:
      UserError: if the runs are not right, or the fit is degenerate.
    """
    names = columns_of(x)
    return fit_points(read_points(runs, form_named(form), names, y, where, compute), names, y, form, where)


def columns_of(x: str) -> list[str]:
    """The columns of x of `fit_runs`."""
    return [name.strip() for name in x.split(",")]


def fit_points(points: RunPoints, names: list[str], y: str, form: str, where: str = "") -> Report:
    """As `fit_runs`, of points that were read; `names` are those of the columns of x."""
    with progress(RESAMPLES, "bootstrap") as bar:
        law = fit(points.x, points.y, form, points.y_se, points.group, rising=rises(y), advance=bar.advance)
    best, why = _frontier(law, points.compute)
    warnings = points.warnings + law.warnings + why
    return Report(law, names, y, where, points.excluded, warnings, points.compute, best)


def _frontier(law: Law, compute: np.ndarray | None) -> tuple[Frontier | None, list[str]]:
    """The frontier, if there is one, and why there is none where one could be expected."""
    if law.form != "chinchilla" or compute is None:
        return None, []
    try:
        return frontier(law, compute), []
    except UserError as error:
        return None, [f"how a budget is best divided cannot be told: {error}"]


def rises(y: str) -> bool | None:
    """Whether a column rises with scale, by the last word of its name; None if that does not tell."""
    word = y.rpartition("_")[2]
    return True if word.endswith("auc") else False if word in ("loss", "ne") else None


def equation(law: Law) -> str:
    """The law in symbols, such as "E - A/x^alpha"."""
    sign = "-" if law.rising else "+"
    return {
        "power": f"E {sign} A/x^alpha",
        "log": "c + k ln x",
        "chinchilla": f"E {sign} A/N^alpha {sign} B/D^beta",
        "loops": f"E {sign} A/(N_once + r^phi N_rec)^alpha",
    }[law.form]


def print_report(report: Report) -> None:
    """Prints parameters, rivals, and what to keep in mind."""
    law = report.law
    print_table(
        f"{report.y} = {equation(law)} of {', '.join(report.x)}: {len(law.points.y)} points",
        ("parameter", "value", "low", "high", "bootstrap", "profile"),
        [
            [name, each.value, each.low, each.high, _interval(each.bootstrap), _interval(each.profile)]
            for name, each in law.parameters.items()
        ],
    )
    own = {"form": law.form, "r2": law.r2, "aic": law.aic, "held_out": law.held_out}
    print_table(
        "\nbeside its rivals; the held-out error is of the largest sizes, predicted from the others",
        ("form", "R2", "AIC", "held-out RMSE"),
        [_judged(rival) for rival in (own, *law.rivals)],
    )
    print(f"\nsum of the objective {law.objective:.9g}; intervals are of 95 %")
    if law.preferred:
        print(f"the {law.preferred} form fits best and predicts best")
    else:
        print("no form is preferred")
    if best := report.frontier:
        share = best.exponent
        print(f"compute-optimal {report.x[0]} grows as compute^{share.value:.3g} ({_interval(share.ends)})")
    for each in report.excluded:
        print(f"excluded: {each['runs']} runs, {each['why']}")
    for sentence in report.warnings:
        print(f"note: {sentence}")


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.5g} to {ends[1]:.5g}"


def _judged(form: dict[str, Any]) -> list[Any]:
    if "refused" in form:
        return [form["form"], None, None, None]
    return [form["form"], form["r2"], form["aic"], (form["held_out"] or {}).get("rmse")]


def write_report(report: Report, out: Path) -> None:
    """Writes fit.json and, where matplotlib is installed, fit.png and fit.svg.

    Raises:
      UserError: if they cannot be written.
    """
    write_json(made(out) / "fit.json", as_json(report))
    if can_draw():
        from suan_jax.scaling import figure

        figure.draw(report, out)


def made(out: Path) -> Path:
    """A directory, made if need be.

    Raises:
      UserError: if that cannot be.
    """
    try:
        make_folder(out)
    except OSError as error:
        raise UserError(f"cannot make the directory {out}: {error.strerror}") from error
    return out


def as_json(report: Report) -> dict[str, Any]:
    """The content of fit.json; its points are enough to fit the law again."""
    law, points = report.law, report.law.points
    return {
        "form": law.form,
        "equation": equation(law),
        "x": report.x[0] if len(report.x) == 1 else report.x,
        "y": report.y,
        "where": report.where,
        "rising": law.rising,
        "parameters": {name: dataclasses.asdict(each) for name, each in law.parameters.items()},
        "objective": law.objective,
        "r2": law.r2,
        "aic": law.aic,
        "held_out": law.held_out,
        "rivals": law.rivals,
        "preferred": law.preferred,
        "frontier": report.frontier and dataclasses.asdict(report.frontier),
        "excluded": report.excluded,
        "warnings": report.warnings,
        "points": {
            "x": points.x.tolist(),
            "y": points.y.tolist(),
            "y_se": None if points.y_se is None else points.y_se.tolist(),
            "group": points.group.tolist(),
            "compute": None if report.compute is None else report.compute.tolist(),
        },
    }


def read_report(path: Path) -> Report:
    """Reads a fit.json: the law is fitted again to the points that it holds, and comes out the same.

    Raises:
      UserError: if the file is no fit.json.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is no fit.json: it holds a {type(content).__name__}, expected an object")
    try:
        points = content["points"]
        law = fit(
            np.array(points["x"], float),
            np.array(points["y"], float),
            content["form"],
            points["y_se"],
            points["group"],
            rising=content["rising"],
        )
        names = content["x"] if isinstance(content["x"], list) else [content["x"]]
        compute = points["compute"] and np.array(points["compute"], float)
        said = [content[name] for name in ("y", "where", "excluded", "warnings")]
        return Report(law, names, *said, compute, _frontier(law, compute)[0])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no fit.json: {error} is missing or not right") from error
