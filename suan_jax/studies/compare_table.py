"""The rows of a comparison: means over seeds, and differences that are paired by seed and by test example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from suan_jax.errors import UserError
from suan_jax.evaluation.metrics import auc_difference, evaluate

Runs = dict[int, dict[str, Any]]
"""Seed to the summary of an entry's run, with its scores."""

COLUMNS = frozenset(
    "model max_len auc auc_se gauc log_loss params flops_per_example examples_per_second device".split()
)
"""What a row reads of a summary."""

LOOP_COLUMNS = frozenset(("loops_trained", "auc_by_loops", "flops_by_loops"))
"""What the rows of a looped entry read of it besides."""


def row(entry: str, rates: Mapping[str, Any], runs: Runs, reference: Runs) -> dict[str, Any]:
    """An entry's row of the table.

    Args:
      entry: its name.
      rates: columns on its learning rates, which the row takes as they are.
      runs: its runs, at least one.
      reference: runs of the entry that it is measured against.

    Returns:
      Column to value.

      Errors are standard errors: `_se` over seeds, `_se_test` of the test examples (DeLong), for differences
      paired by seed and by example. RelaImpr is ((AUC − .5) / (AUC of the reference − .5) − 1) · 100 %.
    """
    first = next(iter(runs.values()))
    found: dict[str, Any] = {"entry": entry, "model": first["model"], "max_len": first["max_len"]}
    for name in ("auc", "gauc", "log_loss"):
        found[name], found[f"{name}_se"] = _mean_and_error([run[name] for run in runs.values()])
    found["auc_se_test"], _ = _mean_and_error([run["auc_se"] for run in runs.values()])
    found |= _against(entry, runs, reference)
    found |= {f"params_{part}": first["params"][part] for part in ("body", "head", "embedding")}
    speeds = [run["examples_per_second"] for run in runs.values() if run["examples_per_second"]]
    return found | {
        "flops_per_example": first["flops_per_example"],
        "examples_per_second": float(np.median(speeds)) if speeds else None,
        **rates,
        "seeds": len(runs),
        "device": first["device"],
    }


def _against(entry: str, runs: Runs, reference: Runs) -> dict[str, float | None]:
    """RelaImpr and the difference of AUC to the reference, of the seeds that both have."""
    columns: dict[str, float | None] = dict.fromkeys(
        ("rela_impr", "difference", "difference_se", "difference_se_test")
    )
    shared = sorted(_ranked(runs) & _ranked(reference))
    if not shared or runs is reference:
        return columns
    own, base = (np.mean([results[seed]["auc"] for seed in shared]) for results in (runs, reference))
    columns["rela_impr"] = float((own - 0.5) / (base - 0.5) - 1) * 100 if base != 0.5 else None
    pairs = [
        _difference(f"seed {seed} of {entry!r}", runs[seed]["scores"], reference[seed]["scores"])
        for seed in shared
    ]
    columns["difference"], columns["difference_se"] = _mean_and_error([difference for difference, _ in pairs])
    columns["difference_se_test"], _ = _mean_and_error([error for _, error in pairs])
    return columns


def _ranked(runs: Runs) -> set[int]:
    """Seeds of the runs that have an AUC."""
    return {seed for seed, run in runs.items() if run["auc"] is not None}


def loop_rows(entry: str, rates: Mapping[str, Any], runs: Runs, reference: Runs) -> list[dict[str, Any]]:
    """The rows of a looped entry, one per number of loops that it is inferred with; none for another.

    Arguments and columns are those of `row`; besides, loops_trained and loops_inferred.
    """
    trained = next(iter(runs.values())).get("loops_trained", -1)
    return [
        {
            **row(entry, rates, {seed: _at(run, loops) for seed, run in runs.items()}, reference),
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


def _mean_and_error(values: list[float | None]) -> tuple[float | None, float | None]:
    """Mean of the values that exist, and its standard error; None for none of them, and for one."""
    values = [value for value in values if value is not None and not np.isnan(value)]
    if not values:
        return None, None
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(np.mean(values)), error
