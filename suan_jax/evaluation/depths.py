"""What an oracle would gain by choosing among a looped model's depths, and what noise alone would gain.

The oracle reads the label: it takes the highest of an example's scores if it was clicked, else the lowest. So
it gains whenever depths disagree, by mere noise too, and does not see which of them is right: of two depths
it scores the same if they change places in any example. Its gain says something of the depths only as far as
it exceeds that of a control which disagrees as much and knows nothing; and what it then says is that they
disagree where the ranking is open.

Sizes: D depths, N examples.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from suan_jax.evaluation import metrics


@dataclasses.dataclass(frozen=True)
class Headroom:
    """AUCs of one set of depths, all of the same examples.

    Attributes:
      mean: of the mean of the depths' logits, which the gains are measured from.
      oracle: of `oracle`.
      gaussian: of the oracle over `gaussian_control`.
      shuffled: of the oracle over `shuffled_control`.
      disagreement: see `disagreement`.
    """

    mean: float
    oracle: float
    gaussian: float
    shuffled: float
    disagreement: float


def oracle(label: np.ndarray, depths_DxN: np.ndarray) -> np.ndarray:
    """The scores (N,) of an oracle that chooses the depth of each example by its label: no model.

    Args:
      label: (N,) of 0 and 1.
      depths_DxN: logits, or any scores.
    """
    return np.where(np.asarray(label) == 1, np.max(depths_DxN, axis=0), np.min(depths_DxN, axis=0))


def disagreement(depths_DxN: np.ndarray) -> float:
    """Standard deviation of an example's logits over the depths, its root mean square over the examples."""
    return float(np.sqrt(np.mean(np.var(np.asarray(depths_DxN, np.float64), axis=0, ddof=1))))


def gaussian_control(
    logit: np.ndarray, depths: int, deviation: float, random: np.random.Generator
) -> np.ndarray:
    """Copies (depths, N) of one logit (N,), each with noise of a standard deviation of its own."""
    return logit + random.normal(0.0, deviation, (depths, len(logit)))


def shuffled_control(depths_DxN: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Depths (D, N) whose mean is each example's own, and whose differences are another example's.

    Beyond its standard deviation it keeps the form of the disagreement: offsets between depths, heavy tails.
    """
    mean = np.mean(depths_DxN, axis=0)
    return mean + (depths_DxN - mean)[:, random.permutation(len(mean))]


def headroom(label: np.ndarray, depths_DxN: np.ndarray, seed: int = 0) -> Headroom:
    """The oracle's AUC, and beside it those of both controls.

    Args:
      label: (N,) of 0 and 1.
      depths_DxN: logits, D at least 2.
      seed: of the controls' noise.
    """
    depths_DxN = np.asarray(depths_DxN, np.float64)
    random = np.random.default_rng(seed)
    mean, deviation = np.mean(depths_DxN, axis=0), disagreement(depths_DxN)
    gaussian = gaussian_control(mean, len(depths_DxN), deviation, random)
    shuffled = shuffled_control(depths_DxN, random)
    return Headroom(
        mean=metrics.auc(label, mean),
        oracle=metrics.auc(label, oracle(label, depths_DxN)),
        gaussian=metrics.auc(label, oracle(label, gaussian)),
        shuffled=metrics.auc(label, oracle(label, shuffled)),
        disagreement=deviation,
    )
