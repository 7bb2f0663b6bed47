"""Points for a law, read from runs: a table of them, or the summaries that they left."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from suan_jax.errors import UserError, nearest
from suan_jax.files import read_json
from suan_jax.paths import files_below, is_remote
from suan_jax.runs import points as points_of
from suan_jax.scaling.checks import usable
from suan_jax.scaling.forms import Form

_SETTINGS = ("model", "max_len", "train_fraction", "loops_trained", "loops_inferred")
_RUN = "_run"  # what errors call a row
_COMPUTE = "train_flops"
_TRAINED = "loops_trained"


@dataclasses.dataclass(frozen=True)
class RunPoints:
    """What runs say about y at x.

    Attributes:
      names: what each run is called, (n,).
      x: (n, k).
      y: (n,).
      y_se: standard errors of y, (n,); None where the runs do not have them.
      excluded: what was left out: {"runs", "why"}.
      warnings: sentences about what is fitted together.
      compute: FLOPs that training took, (n,); None where the runs do not have them.
      group: which configuration each run is of, as in `suan_jax.scaling.fit`: runs of equal x are one, and so
        are all depths of a model that was trained with equal loops, as they are scores of the same runs.
    """

    names: list[str]
    x: np.ndarray
    y: np.ndarray
    y_se: np.ndarray | None
    excluded: list[dict[str, Any]]
    warnings: list[str]
    compute: np.ndarray | None
    group: list[tuple]


def read_points(
    path: Path, form: Form, x: Sequence[str], y: str, where: str = "", compute: str = ""
) -> RunPoints:
    """Reads x and y of runs.

    Args:
      path: a table as CSV; a sweep's work directory with runs.csv; or a directory of work directories.
      form: what will be fitted.
      x: columns, or SQL expressions of columns such as 'examples * max_len'.
      y: a column or an expression; of a column y, standard errors are taken from y_se where that exists.
      where: a condition in SQL, such as "model = 'suan' AND max_len = 100"; runs that do not meet it are left
        out. All are taken if empty.
      compute: column or expression of the FLOPs of training; train_flops, where there is one, if empty.

    Raises:
      UserError: if there are no runs, a column is missing or holds something else than it should.
    """
    return table_points(read_table(path), path, form, x, y, where, compute)


def table_points(
    table: pl.DataFrame,
    path: Path | str,
    form: Form,
    x: Sequence[str],
    y: str,
    where: str = "",
    compute: str = "",
) -> RunPoints:
    """As `read_points`, of runs in a table of `read_table` or `as_table`, which errors call `path`."""
    if len(x) != len(form.columns):
        raise UserError(
            f"--x={','.join(x)} names {len(x)} columns, expected {len(form.columns)} for --form={form.name}: "
            f"{', '.join(form.columns)}"
        )
    excluded, warnings = [], []
    if where:
        kept = _where(table, where, path)
        excluded += _excluded(len(table) - len(kept), f"not {where}")
        table = kept
    for name in (*x, y):
        values = _numbers(table, name, path)
        excluded += _excluded(values.null_count(), f"no {name}")
        table = table.filter(values.is_not_null())
    columns = [_checked(table, name, path, form, index) for index, name in enumerate(x)]
    measured = _checked(table, y, path)
    errors = f"{y}_se"
    y_se = None
    if errors in table.columns:
        known = _numbers(table, errors, path)
        if known.null_count() == 0:
            y_se = known.to_numpy()
        elif known.null_count() < len(known):
            warnings.append(f"some runs have no {errors}, so that points are not weighted")
    x_nk = np.stack(columns, -1) if len(table) else np.empty((0, len(x)))
    if not compute and _COMPUTE in table.columns and not table[_COMPUTE].null_count():
        compute = _COMPUTE
    spent = _checked(table, compute, path, form, 0) if compute else None
    warnings += _mixed(table, x_nk, x)
    group = list(map(tuple, x_nk.tolist()))
    if form.name == "loops":
        trained = table[_TRAINED] if _TRAINED in table.columns else [None] * len(table)
        group = [(*sizes[:2], loops) for sizes, loops in zip(group, trained, strict=True)]
    return RunPoints(table[_RUN].to_list(), x_nk, measured, y_se, excluded, warnings, spent, group)


def _excluded(count: int, why: str) -> list[dict[str, Any]]:
    return [{"runs": count, "why": why}] if count else []


def as_table(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as in runs.csv as a table; "cell" is what errors call a run."""
    named = [{_RUN: row["cell"], **row} for row in rows]
    return pl.DataFrame(named, infer_schema_length=None, strict=False)


def read_table(path: Path) -> pl.DataFrame:
    """All runs of `read_points`' path, a row each.

    Raises:
      UserError: if there are none.
    """
    if path.is_dir() and (path / "runs.csv").exists():
        path = path / "runs.csv"
    if path.is_dir():
        found = sorted(files_below(path, "summary.json"))
        if not found:
            raise UserError(f"{path} holds neither runs.csv nor a work directory with summary.json")
        return as_table(
            {"cell": str(run.parent), **row} for run in found for row in points_of(read_json(run))
        )
    if not path.exists():
        raise UserError(f"{path} does not exist, expected a CSV file or a directory of runs")
    try:
        table = pl.read_csv(path.read_bytes() if is_remote(path) else path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path} is not a table in CSV: {str(error).splitlines()[0]}") from error
    return table.with_row_index(_RUN, 1).with_columns(pl.format("row {}", _RUN).alias(_RUN))


def _where(table: pl.DataFrame, condition: str, path: Path | str) -> pl.DataFrame:
    try:
        return table.filter(pl.sql_expr(condition))
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--where={condition} is no condition on the columns of {path}: {reason}") from error


def _numbers(table: pl.DataFrame, name: str, path: Path | str) -> pl.Series:
    """A column, or an expression, as float64; missing cells are null."""
    if name in table.columns:
        column = table[name]
        numbers = column.cast(pl.Float64, strict=False)
        wrong = (numbers.is_null() & column.is_not_null()).arg_true()
        if len(wrong):
            raise UserError(
                f"{path}: column {name!r}, {table[_RUN][wrong[0]]} is {column[wrong[0]]!r}, expected a number"
            )
        return numbers
    known = [column for column in table.columns if column != _RUN]
    if not set(name) & set('"()+-*/ '):
        raise UserError(f"{path} has no column {name!r}, the nearest is {nearest(name, known)!r}")
    try:
        return table.select(pl.sql_expr(name).cast(pl.Float64).alias(name)).to_series()
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} has no column {name!r}, and it is no expression of columns either: {reason}"
        ) from error


def _checked(
    table: pl.DataFrame, name: str, path: Path | str, form: Form | None = None, index: int = 0
) -> np.ndarray:
    """Finite numbers, and of a form's column those that it can take."""
    values = _numbers(table, name, path).to_numpy()
    right = np.isfinite(values) if form is None else usable(form, index, values)
    if not right.all():
        first = int(np.argmin(right))
        expected = "a finite number" if form is None else "a positive finite number"
        raise UserError(
            f"{path}: column {name!r}, {table[_RUN][first]} is {values[first]:g}, expected {expected}: "
            "--where leaves runs out"
        )
    return values


def _mixed(table: pl.DataFrame, x: np.ndarray, names: Sequence[str]) -> list[str]:
    """Says where one law is asked of things that differ in more than x."""
    found = []
    if "model" in table.columns and table["model"].n_unique() > 1:
        models = ", ".join(map(str, sorted(table["model"].unique().drop_nulls())))
        found.append(f"points of several models ({models}) are fitted together")
    point = np.unique(x, axis=0, return_inverse=True)[1].ravel() if len(x) else np.empty(0, int)
    for name in _SETTINGS[1:]:
        if name in table.columns and name not in names and table[name].n_unique() > 1:
            pairs = set(zip(point.tolist(), table[name].to_list(), strict=True))
            if len(pairs) > len(set(point.tolist())):
                found.append(f"points of equal x differ in {name}")
    return found
