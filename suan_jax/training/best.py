"""Which checkpoint of a run is its best."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from suan_jax.config import Config

_SIGN = {"auc": 1, "gauc": 1, "log_loss": -1}


def best_step(rows: Iterable[dict[str, Any]], config: Config, steps: Collection[int]) -> int | None:
    """The step whose evaluation during training was best by `config.checkpoint.best`; the first of equals.

    Args:
      rows: of metrics.jsonl.
      config: the run's config.
      steps: the steps to choose from, those of its checkpoints.

    Returns:
      The step, or None if no metric chooses, or none of `steps` was evaluated.
    """
    metric = config.checkpoint.best
    values = {
        row["step"]: _SIGN[metric] * row[metric]
        for row in rows
        if metric
        and row.get("split") == config.train.eval_split
        and row.get(metric) is not None
        and row["step"] in steps
    }
    return max(values, key=values.__getitem__, default=None)
