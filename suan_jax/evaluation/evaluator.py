"""Scoring a split: every example once, whatever the batch size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from suan_jax.data.assembly import EvaluationBatch
from suan_jax.evaluation import metrics
from suan_jax.evaluation.histogram import Histogram

EXACT_LIMIT = 100_000_000  # examples whose scores are kept and sorted: about 2 GiB


@dataclasses.dataclass(frozen=True)
class Scores:
    """The examples of a split in store order, with what a model said of them.

    Attributes:
      user: (n,) int64 index of the user.
      label: (n,) float32.
      logit: (n,) float32, put right for negative down-sampling in training.
      truth: name to (n,) float32, the logits a generator drew the labels from; empty for real logs.
    """

    user: np.ndarray
    label: np.ndarray
    logit: np.ndarray
    truth: dict[str, np.ndarray]

    def table(self) -> np.ndarray:
        """Index of the user, label and logit as one structured array (n,)."""
        table = np.empty(len(self.user), [("user", np.int64), ("label", np.uint8), ("logit", np.float32)])
        table["user"], table["label"], table["logit"] = self.user, self.label, self.logit
        return table

    def metrics(self) -> dict[str, float]:
        """All of `metrics.evaluate`, and the Bayes values of each truth."""
        result = metrics.evaluate(self.user, self.label, self.logit)
        for name, logit in self.truth.items():
            suffix = "" if name == "unlimited" else f"_{name}"
            result[f"bayes_auc{suffix}"] = metrics.auc(self.label, logit)
            result[f"bayes_log_loss{suffix}"] = metrics.log_loss(self.label, logit)
        return result


def _scored(
    items: Iterable[EvaluationBatch],
    logits: Callable[[EvaluationBatch], np.ndarray],
    negative_rate: float,
) -> Iterable[Scores]:
    for item in items:
        valid = item.batch.candidate_mask
        yield Scores(
            user=np.broadcast_to(item.user[:, None], valid.shape)[valid],
            label=item.batch.label[valid],
            logit=metrics.correct_for_down_sampling(np.asarray(logits(item))[valid], negative_rate),
            truth={name: value[valid] for name, value in item.truth.items()},
        )


def score(
    items: Iterable[EvaluationBatch],
    logits: Callable[[EvaluationBatch], np.ndarray],
    negative_rate: float = 1.0,
) -> Scores:
    """Scores every example of `items` and keeps the scores.

    Args:
      items: batches of a split, the last one padded.
      logits: the (B, M) logits of one of them.
      negative_rate: `data.negative_rate` of the training run.
    """
    parts = list(_scored(items, logits, negative_rate))
    return Scores(
        user=np.concatenate([part.user for part in parts]),
        label=np.concatenate([part.label for part in parts]),
        logit=np.concatenate([part.logit for part in parts]),
        truth={name: np.concatenate([part.truth[name] for part in parts]) for name in parts[0].truth},
    )


def evaluate(
    items: Iterable[EvaluationBatch],
    logits: Callable[[EvaluationBatch], np.ndarray],
    negative_rate: float,
    examples: int,
    exact_limit: int = EXACT_LIMIT,
) -> dict[str, float]:
    """Metrics of a split: exact, or, above `exact_limit` examples, from a histogram of the logits.

    The histogram holds no users, so gAUC is missing from it, and `auc_error` bounds its AUC's error.

    Args:
      items: as in `score`.
      logits: as in `score`.
      negative_rate: as in `score`.
      examples: examples of the split.
      exact_limit: the most examples whose scores are kept.
    """
    if examples <= exact_limit:
        return score(items, logits, negative_rate).metrics()
    histogram = Histogram()
    for part in _scored(items, logits, negative_rate):
        histogram.add(part.label, part.logit)
    return histogram.evaluate()
