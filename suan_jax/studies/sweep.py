"""Runs every cell of a sweep and writes one row for each that has finished."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from suan_jax.errors import UserError
from suan_jax.files import write_bytes
from suan_jax.runs import csv_text, points
from suan_jax.studies.cells import Cell, check_cells, folder, groups, run_cells
from suan_jax.studies.config_fields import with_fields
from suan_jax.studies.sweep_config import Fields, SweepConfig
from suan_jax.training.workdir import SUMMARY, read_summary

CELLS = "cells"  # folder of the cells in the sweep's work directory


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a sweep has so far.

    Attributes:
      rows: one per finished cell, as in runs.csv.
      failures: name of a cell to what befell it.
      unfinished: names of the cells without a row.
    """

    rows: list[dict[str, Any]]
    failures: dict[str, str]
    unfinished: list[str]


def cells(config: SweepConfig) -> list[Cell]:
    """The cells of a sweep; a cell's name says how it differs, such as "grade=2,seed=0".

    Raises:
      UserError: if there are none, two are alike, or a field or a value of one is not right.
    """
    if not config.cells:
        raise UserError("config.cells is empty, expected at least one cell")
    result = [Cell(_name(fields), with_fields(config, fields)) for fields in config.cells]
    seen: set[str] = set()
    for cell in result:
        if cell.name in seen:
            raise UserError(f"config.cells has {cell.name} twice, expected each once")
        seen.add(cell.name)
    return result


def _name(fields: Fields) -> str:
    """Last names where they tell the fields apart, dotted ones elsewhere."""
    last = [name.rpartition(".")[2] for name in fields]
    short = {name: end if last.count(end) == 1 else name for name, end in zip(fields, last, strict=True)}
    return folder(",".join(f"{short[name]}={value}" for name, value in fields.items()) or "base")


def sweep(config: SweepConfig, workdir: Path, part: int = 0, parts: int = 1, together: int = 1) -> Sweep:
    """Runs the cells that have not finished, one after another, and writes runs.csv.

    Args:
      config: the sweep.
      workdir: where its cells live; the same call again goes on.
      part: which share of the cells to run, of `parts`: a scheduler's array index. runs.csv holds whatever
        has finished, in all of them.
      parts: number of shares.
      together: most cells that train in one program, which one share has; the same for all shares.

    Raises:
      UserError: if the config is not right, or the work directory holds cells of another sweep.
      Preempted: after SIGTERM.
    """
    if not 0 <= part < parts:
        raise UserError(f"--part is {part} of --parts={parts}, expected 0 to {parts - 1}")
    every = cells(config)
    check_cells(every, workdir / CELLS)
    share = [cell for group in groups(every, together)[part::parts] for cell in group]
    failures = run_cells(share, workdir / CELLS, together)
    rows, unfinished = collect(config, workdir)
    return Sweep(rows, failures, unfinished)


def collect(config: SweepConfig, workdir: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Writes runs.csv; returns its rows, and the names of the cells that have not finished."""
    rows, unfinished = [], []
    for cell, fields in zip(cells(config), config.cells, strict=True):
        run = workdir / CELLS / cell.name
        if (run / SUMMARY).exists():
            labels = {"sweep": workdir.name, "cell": cell.name, "rule": config.rule}
            rows += [with_columns({**labels, **point}, fields) for point in points(read_summary(run))]
        else:
            unfinished.append(cell.name)
    if rows:
        write_bytes(workdir / "runs.csv", csv_text(rows).encode())
    return rows, unfinished


def with_columns(row: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """A run's row and what a cell set that the row lacks: model.rms_norm, say, as model_rms_norm."""
    known = {"name", *row}  # the model's name is there as its model
    set_here = {name.replace(".", "_"): value for name, value in fields.items()}
    ends = [name.rpartition(".")[2] for name in fields]
    more = {
        name: value
        for (name, value), end in zip(set_here.items(), ends, strict=True)
        if end not in known and name not in known
    }
    return {**row, **more}
