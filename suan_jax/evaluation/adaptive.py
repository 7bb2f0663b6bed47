"""How many loops an example gets: rules that stop early without reading labels, and what they are worth.

A rule gives every example a score before each further loop; the example stops at the first depth whose score
is below a threshold, else at the last. Sweeping the threshold draws AUC against mean depth and FLOPs. Two
rules are here, both this project's, as the paper (LoopCTR, arXiv 2604.19550) leaves the choice open:

  change  |z_l − z_(l−1)|, the last change of the logit, so that the first loop is always taken;
  gate    |z_n − z_l| as predicted from the logits so far, by a model that is fitted on the frozen model's
          logits of another split.

Logits of different depths are ranked together as they are. Sizes: D = n + 1 depths, N examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from suan_jax.evaluation import metrics

_SAMPLE = 200_000  # examples that a gate is fitted on
_CHUNK = 100_000  # examples whose features are held at once
_KNOTS = np.linspace(0.1, 0.9, 9)  # quantiles
_GRID = 200  # thresholds to choose from
_SHUFFLES = 5


def change_scores(depths_DxN: np.ndarray) -> np.ndarray:
    """The change rule's scores (D − 1, N) before each further loop; infinite before the first."""
    changes = np.abs(np.diff(np.asarray(depths_DxN, np.float64), axis=0))
    return np.concatenate([np.full((1, changes.shape[1]), np.inf), changes[:-1]])


@dataclasses.dataclass(frozen=True)
class Gate:
    """Predicts how far the logit will still move, from the logits so far: additive, piecewise linear.

    Attributes:
      knots: for each depth but the last, (inputs, knots) where the slope in each of its inputs may change.
      weights: for each depth but the last, (1 + inputs · (1 + knots),).
    """

    knots: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]

    def scores(self, depths_DxN: np.ndarray) -> np.ndarray:
        """The gate rule's scores (D − 1, N) of logits: their predicted distance to the last depth's."""
        scores = np.empty((len(self.weights), np.shape(depths_DxN)[1]))
        for start in range(0, scores.shape[1], _CHUNK):
            part = slice(start, start + _CHUNK)
            for depth, (knots, weights) in enumerate(zip(self.knots, self.weights, strict=True)):
                scores[depth, part] = _features(_inputs(depths_DxN[:, part], depth), knots) @ weights
        return scores


def fit_gate(depths_DxN: np.ndarray, seed: int = 0) -> Gate:
    """Fits a gate by least squares on |z_n − z_l|, with no labels.

    Args:
      depths_DxN: logits of a split that the gate is not judged on; D at least 2.
      seed: of the sample it is fitted on, where N is large.
    """
    depths_DxN = np.asarray(depths_DxN, np.float64)
    if depths_DxN.shape[1] > _SAMPLE:
        chosen = np.random.default_rng(seed).choice(depths_DxN.shape[1], _SAMPLE, replace=False)
        depths_DxN = depths_DxN[:, chosen]
    knots, weights = [], []
    for depth in range(len(depths_DxN) - 1):
        inputs = _inputs(depths_DxN, depth)
        knots.append(np.quantile(inputs, _KNOTS, axis=1).T)
        features, target = _features(inputs, knots[-1]), np.abs(depths_DxN[-1] - depths_DxN[depth])
        weights.append(np.linalg.lstsq(features, target)[0])
    return Gate(tuple(knots), tuple(weights))


def _inputs(depths_DxN: np.ndarray, depth: int) -> np.ndarray:
    """What is known at a depth l, (1 + l, N): the logit, and every change that led to it."""
    return np.concatenate([depths_DxN[depth : depth + 1], np.diff(depths_DxN[: depth + 1], axis=0)])


def _features(inputs: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """1, each input and its excess over each of its knots: (N, 1 + inputs · (1 + knots))."""
    excess = np.maximum(inputs[:, None] - knots[:, :, None], 0.0)
    parts = np.concatenate([inputs[:, None], excess], axis=1).reshape(-1, inputs.shape[1])
    return np.concatenate([np.ones((1, parts.shape[1])), parts]).T


def stop_depth(scores: np.ndarray, threshold: float) -> np.ndarray:
    """The depth (N,) at which each example stops: the first whose score (D − 1, N) is below the threshold."""
    below = scores < threshold
    return np.where(below.any(axis=0), below.argmax(axis=0), len(scores))


def thresholds(scores: np.ndarray, points: int = 21) -> np.ndarray:
    """Thresholds at evenly spaced mean depths, ascending: from −∞, nobody stops early, to ∞, all at once.

    Args:
      scores: (D − 1, N) of the split that they are chosen on.
      points: thresholds, at most.
    """
    finite = scores[np.isfinite(scores)]
    if not finite.size:  # the change rule of a single loop
        return np.array([-np.inf])
    grid = np.array([-np.inf, *np.quantile(finite, np.linspace(0, 1, _GRID)), np.inf])
    means = np.array([stop_depth(scores, threshold).mean() for threshold in grid])
    targets = np.linspace(means[0], means[-1], points)
    return np.unique(grid[np.abs(means - targets[:, None]).argmin(axis=1)])


def curve(
    label: np.ndarray,
    depths_DxN: np.ndarray,
    scores: np.ndarray,
    at: np.ndarray,
    fixed_flops: Sequence[float],
    exit_flops: float,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """AUC of a rule against mean depth and FLOPs, beside the same depths dealt out at random.

    Args:
      label: (N,) of 0 and 1.
      depths_DxN: logits.
      scores: (D − 1, N) of the rule.
      at: thresholds.
      fixed_flops: (D,) of an example that is scored at one depth alone.
      exit_flops: of one more depth's logit; a rule reads the logit of every depth that it passes.
      seed: of the random assignments.

    Returns:
      A row per threshold: threshold, mean_depth, shares (of the examples, by depth), flops, auc, random_flops
      and random_auc (the mean of some shuffles of the same depths over the examples), gain (auc − random_auc)
      and gain_se (DeLong, of one shuffle).
    """
    fixed = np.asarray(fixed_flops, np.float64)
    passing = fixed + exit_flops * np.arange(len(fixed))
    random = np.random.default_rng(seed)

    def assigned(depth: np.ndarray) -> np.ndarray:
        return depths_DxN[depth, np.arange(len(depth))]

    def row(threshold: float) -> dict[str, Any]:
        depth = stop_depth(scores, threshold)
        logit = assigned(depth)
        shuffled = [assigned(random.permutation(depth)) for _ in range(_SHUFFLES)]
        auc = metrics.auc(label, logit)
        random_auc = float(np.mean([metrics.auc(label, other) for other in shuffled]))
        return {
            "threshold": float(threshold),
            "mean_depth": float(depth.mean()),
            "shares": (np.bincount(depth, minlength=len(fixed)) / len(depth)).tolist(),
            "flops": float(passing[depth].mean()),
            "auc": auc,
            "random_flops": float(fixed[depth].mean()),
            "random_auc": random_auc,
            "gain": auc - random_auc,
            "gain_se": metrics.auc_difference(label, logit, shuffled[0])[1],
        }

    return [row(threshold) for threshold in at]
