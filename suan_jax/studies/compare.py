"""All models on one harness: rates tuned alike, several seeds, and the table that a paper shows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from suan_jax.errors import UserError
from suan_jax.evaluation import metrics
from suan_jax.runs import points
from suan_jax.studies.cells import Cell, check_cells, folder, run_cells
from suan_jax.studies.compare_config import RATE, CompareConfig, check_comparison
from suan_jax.studies.compare_table import COLUMNS, LOOP_COLUMNS, Runs, loop_rows, row
from suan_jax.studies.config_fields import with_fields
from suan_jax.training.workdir import SCORES, SUMMARY, read_scores, read_summary

_TUNING = {"data.train_on": "train", "train.final_split": "validation", "train.seed": 0}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
      rows: one per entry that has a result, in the order of the config; see
        `suan_jax.studies.compare_table.row`.
      failures: name of a cell to what befell it.
      missing: entries without a result.
      best_possible: AUC of the logits that the labels were drawn from, where the log knows it, else None.
      loop_rows: one per looped entry and number of loops that it can be inferred with; as `rows`, and
        loops_trained and loops_inferred.
      points: every run behind the rows, as a sweep's runs.csv has them, with its entry.
    """

    rows: list[dict[str, Any]]
    failures: dict[str, str]
    missing: list[str]
    best_possible: float | None
    loop_rows: list[dict[str, Any]]
    points: list[dict[str, Any]]


def compare(
    config: CompareConfig, workdir: Path, only: Collection[str] = (), together: int = 1
) -> Comparison:
    """Tunes and trains every entry, and compares what has finished.

    Args:
      config: the comparison.
      workdir: where its cells live; the same call again runs only what has not finished.
      only: entries to run, all if empty; others are compared as far as they have finished before.
      together: most runs of an entry that train in one program.

    Raises:
      UserError: if the config is not right, or the work directory holds cells of another comparison.
      Preempted: after SIGTERM.
    """
    check_comparison(config, only)
    chosen = [entry for entry in config.entries if not only or entry in only]
    tuning = {entry: _tuning_cells(config, entry) for entry in config.entries}
    provisional = {entry: _own_rate(config, entry) for entry in config.entries}
    for entry in config.entries:
        _final_cells(config, entry, provisional)  # a wrong value is found before anything runs
    check_cells([cell for cells in tuning.values() for cell in cells], workdir)
    failures = run_cells([cell for entry in chosen for cell in tuning[entry]], workdir, together)
    tried = {entry: _tried(config, entry, tuning[entry], workdir) for entry in config.entries}
    rates = {entry: tried[entry].best for entry in config.entries}
    final = {entry: _final_cells(config, entry, rates) for entry in config.entries}
    check_cells([cell for cells in final.values() for cell in cells], workdir)
    more = run_cells([cell for entry in chosen for cell in final[entry]], workdir, together)
    results = {entry: _finished(final[entry], workdir) for entry in config.entries}
    reference = results[config.reference]
    found = [(entry, tried[entry].columns(), runs) for entry, runs in results.items() if runs]
    rows = [row(entry, columns, runs, reference) for entry, columns, runs in found]
    by_loops = [each for entry, columns, runs in found for each in loop_rows(entry, columns, runs, reference)]
    missing = [entry for entry in config.entries if not results[entry]]
    best = [run["bayes_auc"] for runs in results.values() for run in runs.values() if "bayes_auc" in run]
    every = [
        {"sweep": workdir.name, "entry": entry, **point}
        for entry, runs in results.items()
        for run in runs.values()
        for point in points({name: value for name, value in run.items() if name != "scores"})
    ]
    return Comparison(rows, failures | more, missing, best[0] if best else None, by_loops, every)


@dataclasses.dataclass(frozen=True)
class _Tried:
    """Learning rates of an entry.

    Attributes:
      aucs: rate to the AUC on the validation split, of the cells that have finished; None of a rate that was
        given.
      left: cells that have none.
    """

    aucs: dict[float, float | None]
    left: int = 0

    @property
    def best(self) -> float | None:
        """The rate of the highest AUC, or the one that was given; None if no cell has finished."""
        return max(self.aucs, key=lambda rate: self.aucs[rate] or 0.0, default=None)

    def columns(self) -> dict[str, Any]:
        """What the table says of them."""
        tuned = None not in self.aucs.values()
        return {
            "learning_rate": self.best,
            "rates_tried": len(self.aucs) if tuned else 0,
            "rates_left": self.left,
            "rate_at_edge": tuned and self.best in (min(self.aucs), max(self.aucs)),
        }


def _own_rate(config: CompareConfig, entry: str) -> float:
    """The rate that an entry is given; of one that is tuned, the first of the grid."""
    return config.entries[entry].get(RATE, config.learning_rates[0])


def _tuning_cells(config: CompareConfig, entry: str) -> list[Cell]:
    """One cell per learning rate, or none where there is nothing to choose."""
    if len(config.learning_rates) == 1 or RATE in config.entries[entry]:
        return []
    fields = {**config.entries[entry], **_TUNING}
    return [
        Cell(f"tuning/{folder(entry)}/{rate:g}", with_fields(config, {**fields, RATE: rate}))
        for rate in config.learning_rates
    ]


def _tried(config: CompareConfig, entry: str, cells: list[Cell], workdir: Path) -> _Tried:
    if not cells:
        return _Tried({_own_rate(config, entry): None})
    runs = [_summary(workdir / cell.name) for cell in cells]
    found = {
        cell.config.optimizer.learning_rate: run["auc"]
        for cell, run in zip(cells, runs, strict=True)
        if run and run["auc"] is not None
    }
    if all(runs) and not found:
        raise UserError(
            f"no learning rate of {entry!r} has an AUC to be chosen by: the validation split lacks clicks, "
            "or impressions without one"
        )
    return _Tried(found, len(cells) - len(found))


def _final_cells(config: CompareConfig, entry: str, rates: dict[str, float | None]) -> list[Cell]:
    """One cell per seed; none without a learning rate."""
    rate = rates[entry]
    if rate is None:
        return []
    cells = []
    for seed in range(config.seeds):
        fields = {**config.entries[entry], RATE: rate, "train.save_scores": True, "train.seed": seed}
        teacher = ""
        if entry in config.teachers:
            taught_by = config.teachers[entry]
            teacher = _final_name(taught_by, rates[taught_by], seed)
            fields["distillation.teacher_from"] = teacher
        cells.append(Cell(_final_name(entry, rate, seed), with_fields(config, fields), teacher))
    return cells


def _final_name(entry: str, rate: float, seed: int) -> str:
    # A rate that is found better later, once a failed cell succeeds, finds another place.
    return f"seeds/{folder(entry)}/{rate:g}/{seed}"


def _summary(workdir: Path) -> dict[str, Any] | None:
    return read_summary(workdir) if (workdir / SUMMARY).exists() else None


def _finished(cells: list[Cell], workdir: Path) -> Runs:
    """Seed to the summary of its cell, and its scores, of the cells that have finished."""
    results = {}
    for cell in cells:
        summary = _summary(workdir / cell.name)
        if summary:
            scores = read_scores(workdir / cell.name)
            _check_run(summary, scores, workdir / cell.name)
            results[cell.config.train.seed] = {**summary, "scores": scores}
    return results


def _check_run(summary: dict[str, Any], scores: np.ndarray, workdir: Path) -> None:
    """Checks that a summary has what the table reads, and that the scores are those it sums up."""
    looped = "loops_trained" in summary
    if left_out := sorted((COLUMNS | LOOP_COLUMNS if looped else COLUMNS) - summary.keys()):
        raise UserError(f"{workdir / SUMMARY} has no {left_out[0]}: remove it and repeat the command")
    logits, aucs = [scores["logit"]], [summary["auc"]]
    if looped:
        aucs += summary["auc_by_loops"]
        logits += list(scores["depths"].T) if "depths" in scores.dtype.names else []
    if len(logits) != len(aucs) or not all(map(functools.partial(_is_auc, scores["label"]), logits, aucs)):
        raise UserError(
            f"{workdir / SCORES} does not have the AUC of the {SUMMARY} beside it: remove that and repeat "
            "the command"
        )


def _is_auc(label: np.ndarray, logit: np.ndarray, auc: float | None) -> bool:
    """Whether logits have this AUC, where there is one."""
    try:
        return auc is None or abs(metrics.auc(label, logit) - auc) < 1e-6
    except UserError:  # numbers that are no labels, or no logits
        return False
