"""Cells of a study: training runs that differ in a few fields, each in a work directory of its own."""

from __future__ import annotations

import copy
import dataclasses
import functools
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from suan_jax.config import Config
from suan_jax.config_check import check_names, validate
from suan_jax.config_dict import model_class, swapped
from suan_jax.distillation import DistillConfig, distill
from suan_jax.distillation.config import check_distillation
from suan_jax.errors import Preempted, UserError
from suan_jax.notice import notice
from suan_jax.training.loop import train
from suan_jax.training.workdir import check_unclaimed


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
      name: where it lives in the study's work directory, such as "seeds/din/0".
      config: the run.
      teacher: name of the cell that teaches it offline; empty if none does.
    """

    name: str
    config: Config
    teacher: str = ""


def with_fields(config: Config, fields: Mapping[str, Any]) -> Config:
    """A training run like `config`, with some dotted fields set, such as {"model.name": "din"}.

    Another model's name takes that model's config, with the values that `config.model` was given where both
    have the field. Fields that a study adds to a run's are left out; a run is a distillation if one of
    `fields` is of `config.distillation`.

    Raises:
      UserError: if a field or a model is not known, or a value is not right.
    """
    distils = isinstance(config, DistillConfig) and any(name.startswith("distillation.") for name in fields)
    kind = DistillConfig if distils else Config
    own = {field.name: getattr(config, field.name) for field in dataclasses.fields(kind)}
    result = kind(**copy.deepcopy(own))
    for name, value in fields.items():
        if name in ("model.name", "distillation.teacher.name"):
            holder, last = _holder(result, name.removesuffix(".name"))
            setattr(holder, last, swapped(getattr(holder, last), model_class(value, f"config.{name}")))
    check_names(result, fields)
    for name, value in fields.items():
        holder, last = _holder(result, name)
        setattr(holder, last, value)
    (check_distillation if distils else validate)(result)
    return result


def _holder(config: Any, name: str) -> tuple[Any, str]:
    """The dataclass that holds a dotted field, and the field's last name."""
    *path, last = name.split(".")
    return functools.reduce(getattr, path, config), last


def folder(name: str) -> str:
    """A name that any file system takes, for what is called `name`."""
    return "".join(letter if letter.isalnum() or letter in "_.,=+-" else "_" for letter in name)


def check_cells(cells: Iterable[Cell], directory: Path) -> None:
    """Checks that what a study's work directory holds was run by these cells' configs.

    Raises:
      UserError: if a cell's work directory holds a run of another config, naming the fields that differ.
    """
    for cell in cells:
        try:
            check_unclaimed(directory / cell.name, cell.config)
        except UserError as error:
            raise UserError(f"{directory} is of another study: {error}") from error


def run_cells(cells: Iterable[Cell], directory: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """Trains cells one after another; those that have finished are not run again.

    Args:
      cells: the runs.
      directory: the study's work directory; a cell's own is `directory / cell.name`.

    Returns:
      The summaries by name, and the sentences of the cells that failed, by name. A failed cell does not stop
      the rest; the same call again tries it once more.

    Raises:
      UserError: before any runs, if one has run with another config.
      Preempted: after SIGTERM; the same call again goes on.
    """
    cells = list(cells)
    check_cells(cells, directory)
    summaries, failures = {}, {}
    for number, cell in enumerate(cells, start=1):
        workdir = directory / cell.name
        if not (workdir / "summary.json").exists():
            notice(f"cell {number} of {len(cells)}: {cell.name}")
        try:
            summaries[cell.name] = _train(cell, directory)
        except Preempted:
            raise
        except Exception as error:  # whatever befell this cell, the others may still run
            failures[cell.name] = _sentence(error)
            notice(f"cell {cell.name} failed: {failures[cell.name]}")
        jax.clear_caches()  # programs of a cell that is done only hold memory
    return summaries, failures


def _train(cell: Cell, directory: Path) -> dict[str, Any]:
    workdir, teacher = directory / cell.name, directory / cell.teacher if cell.teacher else None
    if not isinstance(cell.config, DistillConfig):
        return train(cell.config, workdir)
    if teacher and not any((run / "summary.json").exists() for run in (workdir, teacher)):
        raise UserError(f"its teacher, {cell.teacher}, has not finished")
    return distill(cell.config, workdir, teacher)


def _sentence(error: Exception) -> str:
    """What befell a cell, in one line."""
    if isinstance(error, UserError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}: {text[:300]}"
