"""All models on one harness: rates tuned alike, several seeds, and the table that a paper shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from suan_jax.errors import UserError, nearest
from suan_jax.evaluation.metrics import auc_difference, evaluate
from suan_jax.runs import points
from suan_jax.studies.cells import Cell, check_cells, folder, run_cells, with_fields
from suan_jax.studies.compare_config import CompareConfig
from suan_jax.training.workdir import SUMMARY, read_scores, read_summary

_RATE = "optimizer.learning_rate"
_Runs = dict[int, dict[str, Any]]  # seed to a summary and its scores
_LONGEST = 100  # bytes of a name; file systems take 255
_SHARED = ("data.store", "train.final_split", "train.seed", "train.save_scores")
_TUNING = {"data.train_on": "train", "train.final_split": "validation", "train.seed": 0}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
      rows: one per entry that has a result, in the order of the config; see `_row`.
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
    _check(config, only)
    chosen = [entry for entry in config.entries if not only or entry in only]
    tuning = {entry: _tuning_cells(config, entry) for entry in config.entries}
    check_cells([cell for cells in tuning.values() for cell in cells], workdir)
    _, failures = run_cells([cell for entry in chosen for cell in tuning[entry]], workdir, together)
    tried = {entry: _tried(config, entry, tuning[entry], workdir) for entry in config.entries}
    rates = {entry: tried[entry].best for entry in config.entries}
    final = {entry: _final_cells(config, entry, rates) for entry in config.entries}
    check_cells([cell for cells in final.values() for cell in cells], workdir)
    _, more = run_cells([cell for entry in chosen for cell in final[entry]], workdir, together)
    results = {entry: _finished(final[entry], workdir) for entry in config.entries}
    reference = results[config.reference]
    rows = [_row(entry, tried[entry], runs, reference) for entry, runs in results.items() if runs]
    loop_rows = [
        row for entry, runs in results.items() for row in _loop_rows(entry, tried[entry], runs, reference)
    ]
    missing = [entry for entry in config.entries if not results[entry]]
    best = [run["bayes_auc"] for runs in results.values() for run in runs.values() if "bayes_auc" in run]
    every = [
        {"sweep": workdir.name, "entry": entry, **point}
        for entry, runs in results.items()
        for run in runs.values()
        for point in points({name: value for name, value in run.items() if name != "scores"})
    ]
    return Comparison(rows, failures | more, missing, best[0] if best else None, loop_rows, every)


def _check(config: CompareConfig, only: Collection[str]) -> None:
    _check_entries(config.entries)
    for name in (config.reference, *only):
        if name not in config.entries:
            raise UserError(
                f"{name!r} is no entry of the comparison, the nearest is "
                f"{nearest(name, config.entries)!r} of {', '.join(config.entries)}"
            )
    entries = list(config.entries)
    for student, teacher in config.teachers.items():
        if not {student, teacher} <= set(entries) or entries.index(teacher) >= entries.index(student):
            raise UserError(
                f"config.teachers has {teacher!r} for {student!r}, expected two entries, the teacher above"
            )
        if len(config.learning_rates) > 1 and _RATE not in config.entries[student]:
            raise UserError(
                f"{student!r} of config.teachers has no {_RATE}, expected one, as config.learning_rates has "
                "several and its teacher is not there before they are tuned"
            )
    if config.seeds < 1:
        raise UserError(f"config.seeds is {config.seeds}, expected at least 1")
    rates = [f"{rate:g}" for rate in config.learning_rates]
    if not rates:
        raise UserError("config.learning_rates is empty, expected at least one learning rate")
    if twice := [rate for rate in rates if rates.count(rate) > 1]:
        raise UserError(f"config.learning_rates has {twice[0]} twice, to six digits, expected each once")


def _check_entries(entries: dict[str, dict[str, Any]]) -> None:
    places: dict[str, str] = {}
    for entry, fields in entries.items():
        if not isinstance(entry, str) or not entry.isprintable() or folder(entry) in ("", ".", ".."):
            raise UserError(f"config.entries has {entry!r}, expected the name of a row")
        if len(folder(entry).encode()) > _LONGEST:
            raise UserError(f"config.entries has {entry!r}, expected a name of at most {_LONGEST} bytes")
        if (other := places.setdefault(folder(entry), entry)) != entry:
            raise UserError(
                f"config.entries has {other!r} and {entry!r}, whose runs would both be in "
                f"{folder(entry)}: expected names that differ in letters or digits"
            )
        if not isinstance(fields, dict):
            raise UserError(f"config.entries has {fields!r} for {entry!r}, expected fields and their values")
        for name in fields:
            if name in _SHARED or str(name).startswith("data.synthetic."):
                raise UserError(
                    f"{entry!r} of config.entries sets {name}, expected the same seeds and test examples for "
                    "all"
                )
    if not entries:
        raise UserError("config.entries is empty, expected the rows of the table")


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


def _tuning_cells(config: CompareConfig, entry: str) -> list[Cell]:
    """One cell per learning rate, or none where there is nothing to choose."""
    if len(config.learning_rates) == 1 or _RATE in config.entries[entry]:
        return []
    fields = {**config.entries[entry], **_TUNING}
    return [
        Cell(f"tuning/{folder(entry)}/{rate:g}", with_fields(config, {**fields, _RATE: rate}))
        for rate in config.learning_rates
    ]


def _tried(config: CompareConfig, entry: str, cells: list[Cell], workdir: Path) -> _Tried:
    if not cells:
        return _Tried({config.entries[entry].get(_RATE, config.learning_rates[0]): None})
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
        fields = {**config.entries[entry], _RATE: rate, "train.save_scores": True, "train.seed": seed}
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


def _finished(cells: list[Cell], workdir: Path) -> _Runs:
    """Seed to the summary of its cell, and its scores, of the cells that have finished."""
    results = {}
    for cell in cells:
        summary = _summary(workdir / cell.name)
        if summary:
            results[cell.config.train.seed] = {**summary, "scores": read_scores(workdir / cell.name)}
    return results


def _mean_and_error(values: list[float | None]) -> tuple[float | None, float | None]:
    """Mean of the values that exist, and its standard error; None for none of them, and for one."""
    values = [value for value in values if value is not None and not np.isnan(value)]
    if not values:
        return None, None
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(np.mean(values)), error


def _row(entry: str, tried: _Tried, runs: _Runs, reference: _Runs) -> dict[str, Any]:
    """A row of the table.

    Errors are standard errors: `_se` over seeds, `_se_test` of the test examples (DeLong), for differences
    paired by seed and by example. RelaImpr is ((AUC − .5) / (AUC of the reference − .5) − 1) · 100 %.
    """
    first = next(iter(runs.values()))
    row: dict[str, Any] = {"entry": entry, "model": first["model"], "max_len": first["max_len"]}
    for name in ("auc", "gauc", "log_loss"):
        row[name], row[f"{name}_se"] = _mean_and_error([run[name] for run in runs.values()])
    row["auc_se_test"], _ = _mean_and_error([run["auc_se"] for run in runs.values()])
    ranked = lambda results: {seed for seed, run in results.items() if run["auc"] is not None}  # noqa: E731
    shared = sorted(ranked(runs) & ranked(reference))
    row |= dict.fromkeys(("rela_impr", "difference", "difference_se", "difference_se_test"))
    if shared and runs is not reference:
        own, base = (np.mean([results[seed]["auc"] for seed in shared]) for results in (runs, reference))
        row["rela_impr"] = float((own - 0.5) / (base - 0.5) - 1) * 100 if base != 0.5 else None
        pairs = [
            _difference(f"seed {seed} of {entry!r}", runs[seed]["scores"], reference[seed]["scores"])
            for seed in shared
        ]
        row["difference"], row["difference_se"] = _mean_and_error([difference for difference, _ in pairs])
        row["difference_se_test"], _ = _mean_and_error([error for _, error in pairs])
    row |= {f"params_{part}": first["params"][part] for part in ("body", "head", "embedding")}
    speeds = [run["examples_per_second"] for run in runs.values() if run["examples_per_second"]]
    return row | {
        "flops_per_example": first["flops_per_example"],
        "examples_per_second": float(np.median(speeds)) if speeds else None,
        **tried.columns(),
        "seeds": len(runs),
        "device": first["device"],
    }


def _loop_rows(entry: str, tried: _Tried, runs: _Runs, reference: _Runs) -> list[dict[str, Any]]:
    """The rows of a looped entry, one per number of loops that it is inferred with; none for another."""
    trained = next(iter(runs.values()), {}).get("loops_trained", -1)
    return [
        {
            **_row(entry, tried, {seed: _at(run, loops) for seed, run in runs.items()}, reference),
            "loops_trained": trained,
            "loops_inferred": loops,
        }
        for loops in range(trained + 1)
    ]


def _at(run: dict[str, Any], loops: int) -> dict[str, Any]:
    """A looped model's run as if its headline were of that many loops."""
    scores = run["scores"].copy()
    scores["logit"] = scores["depths"][:, loops]
    found = evaluate(scores["user"], scores["label"], scores["logit"])
    found = {
        name: None if np.isnan(value) else value for name, value in found.items()
    }  # as summaries have it
    return {**run, **found, "scores": scores, "flops_per_example": run["flops_by_loops"][loops]}


def _difference(which: str, mine: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Difference of AUC and its standard error, of two runs' scores of the same examples."""
    if not all(np.array_equal(mine[name], other[name]) for name in ("user", "label")):
        raise UserError(
            f"the scores of {which} are not of the reference's examples: remove its runs and repeat"
        )
    return auc_difference(mine["label"], mine["logit"], other["logit"])
