"""Metrics of a log too large to keep: counts in fixed bins, which add up over blocks and processes."""

from __future__ import annotations

import math

import numpy as np

from suan_jax.evaluation import metrics

_LIMIT = 16.0  # bins cover logits in [-16, 16]; beyond, everything falls into the outermost bins
_BINS = 1 << 18  # 1.2e-4 of logit each; 4 MiB for both classes


class Histogram:
    """Clicks and other impressions by bin of their logit, and the sums that the other metrics need.

    Memory is constant in the number of examples. Log loss, NE and calibration are exact. AUC lies within
    `auc_error` of the truth for certain: only pairs that share a bin are in doubt, and a shared bin counts
    them one half.
    """

    def __init__(self) -> None:
        self.positives = np.zeros(_BINS, np.int64)
        self.negatives = np.zeros(_BINS, np.int64)
        self.loss = 0.0  # sum of log losses, in nats
        self.prediction = 0.0  # sum of predicted probabilities

    def add(self, label: np.ndarray, logit: np.ndarray) -> None:
        """Counts examples in: label (n,) of 0 and 1, logit (n,).

        Raises:
          UserError: as the functions of `metrics` do; nothing is counted then.
        """
        clicked, logit = metrics.checked(label, logit)
        inside = np.clip(logit.astype(np.float64), -_LIMIT, _LIMIT)
        bins = np.minimum(((inside + _LIMIT) * (_BINS / (2 * _LIMIT))).astype(np.int64), _BINS - 1)
        positives = np.bincount(bins[clicked], minlength=_BINS)
        self.positives += positives
        self.negatives += np.bincount(bins, minlength=_BINS) - positives
        self.loss += float(metrics.losses(clicked, logit).sum())
        self.prediction += float(metrics.probabilities(logit).sum())

    def __add__(self, other: Histogram) -> Histogram:
        """The histogram of the examples of both."""
        total = Histogram()
        for name in vars(total):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total

    def evaluate(self) -> dict[str, float | int]:
        """As `metrics.evaluate` without gauc, and auc_error, a bound on how far `auc` is off."""
        positives, negatives = int(self.positives.sum()), int(self.negatives.sum())
        examples, pairs = positives + negatives, positives * negatives
        loss = self.loss / examples if examples else math.nan
        prediction = self.prediction / examples if examples else math.nan
        shared = int(np.dot(self.positives, self.negatives))  # pairs in one bin
        return {
            "auc": metrics.auc_of_counts(self.positives, self.negatives),
            "auc_error": shared / (2 * pairs) if pairs else math.nan,
            "auc_se": metrics.auc_standard_error_of_counts(self.positives, self.negatives),
            "log_loss": loss,
            **metrics.ratios(loss, prediction, positives / examples if examples else math.nan),
            "evaluated_examples": examples,
        }
