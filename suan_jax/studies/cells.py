"""Cells of a study: training runs that differ in a few fields, each in a work directory of its own."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from suan_jax.config import Config
from suan_jax.distillation import DistillConfig, distill
from suan_jax.errors import JobEnd, Preempted, UserError, full_disk
from suan_jax.notice import notice
from suan_jax.training.joint import shared_program
from suan_jax.training.loop import train_together
from suan_jax.training.workdir import SUMMARY, check_unclaimed


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
      name: where it lives in the study's work directory, such as "seeds/din/0.002/0".
      config: the run.
      teacher: name of the cell that teaches it offline; empty if none does.
    """

    name: str
    config: Config
    teacher: str = ""


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


def run_cells(cells: Iterable[Cell], directory: Path, together: int = 1) -> dict[str, str]:
    """Trains cells one after another, or as many together as asked for; those that have finished stay.

    Args:
      cells: the runs.
      directory: where cells live; a cell's own work directory is `directory / cell.name`.
      together: most cells in one program; only those that differ in seed and peak learning rates alone, and
        are no distillations.

    Returns:
      The sentences of the cells that failed, by name. A failed cell does not stop the rest; the same call
      again tries it once more.

    Raises:
      UserError: before any runs, if one has run with another config, or `together` is less than 1.
      Preempted: after SIGTERM; the same call again goes on.
    """
    cells = list(cells)
    check_cells(cells, directory)
    failures, done = {}, 0
    for group in groups(cells, together):
        names = [cell.name for cell in group]
        done += len(group)
        if not all((directory / name / SUMMARY).exists() for name in names):
            notice(f"cell {done} of {len(cells)}: {', '.join(names)}")
        try:
            results = _train(group, directory)
        except Preempted:
            raise
        except Exception as error:  # whatever befell these cells, the others may still run
            results = [error] * len(group)
        for name, result in zip(names, results, strict=True):
            if isinstance(result, Exception):
                failures[name] = _sentence(result)
                notice(f"cell {name} failed: {failures[name]}")
        jax.clear_caches()  # programs of cells that are done only hold memory
    return failures


def raise_failures(failures: Mapping[str, str]) -> None:
    """Ends a job some of whose cells failed.

    Raises:
      UserError: naming them, if there are any.
    """
    if failures:
        names = ", ".join(failures)
        raise UserError(f"{len(failures)} cells failed ({names}): repeat the command to try again")


def groups(cells: Sequence[Cell], together: int) -> list[list[Cell]]:
    """Cells that train in one program side by side, at most `together` of them.

    Raises:
      UserError: if `together` is less than 1.
    """
    if together < 1:
        raise UserError(f"--together is {together}, expected at least 1")
    latest: dict[str, list[Cell]] = {}
    found: list[list[Cell]] = []
    for cell in cells:
        program = cell.name if isinstance(cell.config, DistillConfig) else shared_program(cell.config)
        if len(latest.get(program, ())) in (0, together):
            latest[program] = []
            found.append(latest[program])
        latest[program].append(cell)
    return found


def _train(group: Sequence[Cell], directory: Path) -> list[dict[str, Any] | UserError]:
    """The summaries of cells of one program; in place of one, what made it diverge."""
    first = group[0]
    if not isinstance(first.config, DistillConfig):
        return list(train_together({directory / cell.name: cell.config for cell in group}).values())
    workdir, teacher = directory / first.name, directory / first.teacher if first.teacher else None
    if teacher and not any((run / SUMMARY).exists() for run in (workdir, teacher)):
        raise UserError(f"its teacher, {first.teacher}, has not finished")
    return [distill(first.config, workdir, teacher)]


def _sentence(error: Exception) -> str:
    """What befell a cell, in one line."""
    if isinstance(error, JobEnd):
        return str(error)
    if sentence := full_disk(error):
        return sentence
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}: {text[:300]}"
