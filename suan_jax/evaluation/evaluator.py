"""Scoring a split: every example once, whatever the batch size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from suan_jax.data.assembly import EvaluationBatch
from suan_jax.evaluation import metrics
from suan_jax.evaluation.histogram import Histogram

EXACT_LIMIT = 100_000_000  # examples whose scores are kept and sorted: about 2 GiB

Whole = Callable[[EvaluationBatch], EvaluationBatch]


@dataclasses.dataclass(frozen=True)
class Scores:
    """The examples of a split in store order, with what a model said of them.

    Attributes:
      user: (n,) int64 index of the user.
      label: (n,) float32.
      logit: (n,) float32, put right for negative down-sampling in training.
      truth: name to (n,) float32, the logits a generator drew the labels from; empty for real logs.
      depths: (depths, n) float32, the logits of a looped model after 0, 1, ... loops, or None.
    """

    user: np.ndarray
    label: np.ndarray
    logit: np.ndarray
    truth: dict[str, np.ndarray]
    depths: np.ndarray | None = None

    def table(self) -> np.ndarray:
        """Index of the user, label, logit and depths (a row each), if there are any: structured, (n,)."""
        fields = [("user", np.int64), ("label", np.uint8), ("logit", np.float32)]
        if self.depths is not None:
            fields.append(("depths", np.float32, (len(self.depths),)))
        table = np.empty(len(self.user), fields)
        table["user"], table["label"], table["logit"] = self.user, self.label, self.logit
        if self.depths is not None:
            table["depths"] = self.depths.T
        return table

    def metrics(self) -> dict[str, Any]:
        """All of `metrics.evaluate`, `auc_by_loops` of the depths, and the Bayes values of each truth."""
        result = metrics.evaluate(self.user, self.label, self.logit)
        if self.depths is not None:
            result["auc_by_loops"] = [metrics.auc(self.label, logit) for logit in self.depths]
        for name, logit in self.truth.items():
            suffix = "" if name == "unlimited" else f"_{name}"
            result[f"bayes_auc{suffix}"] = metrics.auc(self.label, logit)
            result[f"bayes_log_loss{suffix}"] = metrics.log_loss(self.label, logit)
        return result


def _itself(item: EvaluationBatch) -> EvaluationBatch:
    return item


def _scored(
    items: Iterable[EvaluationBatch],
    logits: Callable[[EvaluationBatch], np.ndarray],
    negative_rate: float,
    headline: int,
    whole: Whole,
) -> Iterable[Scores]:
    for item in items:
        scored = np.asarray(logits(item))
        item = whole(item)
        valid = item.batch.candidate_mask
        logit = metrics.correct_for_down_sampling(scored[..., valid], negative_rate)
        depths = logit if logit.ndim == 2 else None
        yield Scores(
            user=np.broadcast_to(item.user[:, None], valid.shape)[valid],
            label=item.batch.label[valid],
            logit=logit if depths is None else depths[headline],
            truth={name: value[valid] for name, value in item.truth.items()},
            depths=depths,
        )


def score(
    items: Iterable[EvaluationBatch],
    logits: Callable[[EvaluationBatch], np.ndarray],
    negative_rate: float = 1.0,
    headline: int = 0,
    whole: Whole = _itself,
) -> Scores:
    """Scores every example of `items` and keeps the scores.

    Args:
      items: batches of a split, the last one padded.
      logits: the logits of one of them: (B, M), or (depths, B, M) of a looped model.
      negative_rate: `data.negative_rate` of the training run.
      headline: the depth whose logits are `Scores.logit`, where there are several.
      whole: an item with labels, masks, users and truths of all processes, where an item holds this one's
        rows and its logits those of all.
    """
    parts = list(_scored(items, logits, negative_rate, headline, whole))
    depths = None if parts[0].depths is None else np.concatenate([part.depths for part in parts], axis=1)
    return Scores(
        user=np.concatenate([part.user for part in parts]),
        label=np.concatenate([part.label for part in parts]),
        logit=np.concatenate([part.logit for part in parts]),
        truth={name: np.concatenate([part.truth[name] for part in parts]) for name in parts[0].truth},
        depths=depths,
    )


def evaluate(
    items: Iterable[EvaluationBatch],
    logits: Callable[[EvaluationBatch], np.ndarray],
    negative_rate: float,
    examples: int,
    headline: int = 0,
    exact_limit: int = EXACT_LIMIT,
    whole: Whole = _itself,
) -> dict[str, Any]:
    """Metrics of a split: exact, or, above `exact_limit` examples, from a histogram of the logits.

    The histogram holds no users, so gAUC is missing from it, and `auc_error` bounds its AUC's error.

    Args:
      items: as in `score`.
      logits: as in `score`.
      negative_rate: as in `score`.
      examples: examples of the split.
      headline: as in `score`.
      exact_limit: the most examples whose scores are kept.
      whole: as in `score`.
    """
    if examples <= exact_limit:
        return score(items, logits, negative_rate, headline, whole).metrics()
    histogram, by_depth = Histogram(), []
    for part in _scored(items, logits, negative_rate, headline, whole):
        histogram.add(part.label, part.logit)
        if part.depths is not None:
            by_depth = by_depth or [Histogram() for _ in part.depths]
            for depth, logit in zip(by_depth, part.depths, strict=True):
                depth.add(part.label, logit)
    result = histogram.evaluate()
    if by_depth:
        result["auc_by_loops"] = [depth.evaluate()["auc"] for depth in by_depth]
    return result
