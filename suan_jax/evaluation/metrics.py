"""Ranking and calibration metrics of click predictions: exact, in NumPy, invariant to the order of examples.

n examples throughout: label (n,) of 0 and 1, logit or score (n,), user (n,) integers. A metric that does
not exist for its input is NaN: AUC and gAUC want both classes, normalized entropy too, and calibration
wants a click. Every function raises `UserError` if labels are not 0 or 1, shapes differ, or a score is not
finite.
"""

from __future__ import annotations

import math

import numpy as np

from suan_jax.errors import UserError


def checked(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two as arrays, label (n,) bool and score (n,).

    Raises:
      UserError: if shapes differ, a label is not 0 or 1, or a score is NaN or infinite.
    """
    label, score = np.asarray(label), np.asarray(score)
    if label.ndim != 1 or label.shape != score.shape:
        raise UserError(f"labels are {label.shape} and scores {score.shape}, expected both to be (n,)")
    clicked = label == 1
    if not np.all(clicked | (label == 0)):
        raise UserError(f"a label is {label[~clicked & (label != 0)][0]}, expected 0 or 1")
    bad = score.size - np.count_nonzero(np.isfinite(score))
    if bad:
        raise UserError(f"{bad} of {score.size} scores are NaN or infinite, expected finite numbers")
    return clicked, score


def _group_starts(*sorted_keys: np.ndarray) -> np.ndarray:
    """Where a run of equal keys starts, for keys (n,) that are sorted together; n > 0."""
    change = np.zeros(len(sorted_keys[0]), bool)
    change[0] = True
    for key in sorted_keys:
        change[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(change)


def _counts(clicked: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives at each distinct score, ascending: two (groups,) int64 arrays."""
    if not score.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    order = np.argsort(score)
    starts = _group_starts(score[order])
    sizes = np.diff(starts, append=score.size)
    positives = np.add.reduceat(clicked[order], starts, dtype=np.int64)
    return positives, sizes - positives


def auc_of_counts(positives: np.ndarray, negatives: np.ndarray) -> float:
    """AUC of scores that take k values, ascending, from the positives and negatives at each.

    A tie counts one half (Mann and Whitney, 1947). Args are (k,) int64; the sums are exact integers up to
    4 · 10^18 pairs.
    """
    pairs = int(positives.sum()) * int(negatives.sum())
    if not pairs:
        return math.nan
    below = np.cumsum(negatives) - negatives
    return int(np.dot(positives, 2 * below + negatives)) / (2 * pairs)


def auc_standard_error_of_counts(positives: np.ndarray, negatives: np.ndarray) -> float:
    """DeLong's standard error of `auc_of_counts`; NaN below two examples of either class."""
    total_positive, total_negative = int(positives.sum()), int(negatives.sum())
    if min(total_positive, total_negative) < 2:
        return math.nan
    below = np.cumsum(negatives) - negatives
    above = total_positive - np.cumsum(positives)
    auc = auc_of_counts(positives, negatives)
    # An example's placement: the share of the other class that it is ranked rightly against.
    placed_positive = (below + 0.5 * negatives) / total_negative
    placed_negative = (above + 0.5 * positives) / total_positive
    variance_positive = np.dot(positives, (placed_positive - auc) ** 2) / (total_positive - 1)
    variance_negative = np.dot(negatives, (placed_negative - auc) ** 2) / (total_negative - 1)
    return math.sqrt(variance_positive / total_positive + variance_negative / total_negative)


def auc(label: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve; a tie between a positive and a negative counts one half."""
    return auc_of_counts(*_counts(*checked(label, score)))


def auc_standard_error(label: np.ndarray, score: np.ndarray) -> float:
    """Standard error of `auc` by placements (DeLong et al., 1988) from midranks (Sun and Xu, 2014).

    O(n log n), and equal to the definition over all pairs.
    """
    return auc_standard_error_of_counts(*_counts(*checked(label, score)))


def auc_difference(label: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """AUC of `first` minus AUC of `second` on the same examples, and its standard error.

    Both models err on the same examples, so the error is far below that of either AUC (DeLong et al., 1988).
    NaN below two examples of either class.
    """
    clicked, first = checked(label, first)
    _, second = checked(label, second)
    placed = [_placements(clicked, score) for score in (first, second)]
    if min(map(len, placed[0])) < 2:
        return math.nan, math.nan
    variance, difference = 0.0, 0.0
    for mine, other in zip(*placed, strict=True):  # of the clicked examples, then of the others
        variance += np.var(mine - other, ddof=1) / len(mine)
        difference = float(np.mean(mine - other))
    return difference, math.sqrt(variance)


def _placements(clicked: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the other class that each example is ranked rightly against: of clicked ones, of others."""
    positive, negative = score[clicked], score[~clicked]

    def below(sorted_scores: np.ndarray, at: np.ndarray) -> np.ndarray:
        sides = (np.searchsorted(sorted_scores, at, side) for side in ("left", "right"))
        return sum(sides) / (2 * max(len(sorted_scores), 1))

    return below(np.sort(negative), positive), 1.0 - below(np.sort(positive), negative)


def _grouped_auc(user: np.ndarray, clicked: np.ndarray, score: np.ndarray) -> tuple[float, int]:
    """`gauc` and the number of users it is a mean over."""
    if not score.size:
        return math.nan, 0
    order = np.lexsort((score, user))
    user, clicked, score = user[order], clicked[order], score[order]
    ties = _group_starts(user, score)
    positives = np.add.reduceat(clicked, ties, dtype=np.int64)
    negatives = np.diff(ties, append=score.size) - positives
    users = _group_starts(user[ties])  # the first tie of each user
    user_positives = np.add.reduceat(positives, users)
    user_negatives = np.add.reduceat(negatives, users)
    below = np.cumsum(negatives) - negatives
    below -= np.repeat(below[users], np.diff(users, append=len(ties)))
    wins_twice = np.add.reduceat(positives * (2 * below + negatives), users)
    pairs = user_positives * user_negatives
    both = pairs > 0
    if not both.any():
        return math.nan, 0
    impressions = (user_positives + user_negatives)[both]
    aucs = wins_twice[both] / (2 * pairs[both])
    return float(np.dot(impressions, aucs) / impressions.sum()), int(np.count_nonzero(both))


def gauc(user: np.ndarray, label: np.ndarray, score: np.ndarray) -> float:
    """Mean over users of the AUC of their own impressions, weighted by the number of these.

    Users without a click, or with nothing but clicks, have no AUC and are left out (Zhou et al., 2018,
    "Deep Interest Network", section 6.2).
    """
    return _grouped_auc(_checked_user(user, label), *checked(label, score))[0]


def _checked_user(user: np.ndarray, label: np.ndarray) -> np.ndarray:
    user = np.asarray(user)
    if user.shape != np.shape(label):
        raise UserError(f"users are {user.shape} and labels {np.shape(label)}, expected both to be (n,)")
    return user


def losses(clicked: np.ndarray, logit: np.ndarray) -> np.ndarray:
    """Log loss of each example in nats, (n,) float64, from clicked (n,) bool; stable at any logit."""
    logit = np.asarray(logit, np.float64)
    return np.logaddexp(0.0, np.where(clicked, -logit, logit))


def probabilities(logit: np.ndarray) -> np.ndarray:
    """The sigmoid in float64, relatively accurate at very negative logits too."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(logit, np.float64)))


def log_loss(label: np.ndarray, logit: np.ndarray) -> float:
    """Mean negative log likelihood, in nats; NaN without examples."""
    clicked, logit = checked(label, logit)
    return float(losses(clicked, logit).mean()) if logit.size else math.nan


def entropy(rate: float) -> float:
    """Entropy of a click of probability `rate`, in nats."""
    return -sum(p * math.log(p) for p in (rate, 1.0 - rate) if p > 0.0)


def ratios(loss: float, mean_prediction: float, rate: float) -> dict[str, float]:
    """Normalized entropy and calibration from sums over a split.

    Args:
      loss: mean log loss.
      mean_prediction: mean predicted probability.
      rate: click rate of the same examples.

    Returns:
      {"ne", "calibration"}.
    """
    base = entropy(rate)
    return {
        "ne": loss / base if base else math.nan,
        "calibration": mean_prediction / rate if rate else math.nan,
    }


def normalized_entropy(label: np.ndarray, logit: np.ndarray) -> float:
    """Log loss over the entropy of the examples' own click rate (He et al., 2014, section 3.1).

    Below 1 the predictions say more than the click rate does.
    """
    rate = float(checked(label, logit)[0].mean()) if np.size(label) else math.nan
    return ratios(log_loss(label, logit), math.nan, rate)["ne"]


def calibration(label: np.ndarray, logit: np.ndarray) -> float:
    """Mean predicted probability over the click rate; 1 is right on average (He et al., 2014)."""
    clicked, logit = checked(label, logit)
    if not logit.size:
        return math.nan
    return ratios(math.nan, float(probabilities(logit).mean()), float(clicked.mean()))["calibration"]


def correct_for_down_sampling(logit, rate: float):
    """Puts logits right that were learnt with only a share `rate` of the negatives.

    The probability p becomes p / (p + (1 - p) / rate) (He et al., 2014, section 6.3), which multiplies the
    odds by `rate`: a constant shift of the logit. Works on NumPy and JAX arrays of any shape.

    Raises:
      UserError: if `rate` is not in (0, 1].
    """
    if not 0.0 < rate <= 1.0:
        raise UserError(f"data.negative_rate is {rate}, expected a share in (0, 1]")
    return logit + math.log(rate)


def evaluate(user: np.ndarray, label: np.ndarray, logit: np.ndarray) -> dict[str, float | int]:
    """All metrics of a split at once.

    Args:
      user: (n,) integers.
      label: (n,) of 0 and 1.
      logit: (n,) log-odds of a click.

    Returns:
      auc, auc_se (DeLong), gauc, gauc_users (the users it is a mean over), log_loss (nats), ne,
      calibration, evaluated_examples. What does not exist is NaN, which is written as null in JSON.
    """
    user = _checked_user(user, label)
    clicked, logit = checked(label, logit)
    counts = _counts(clicked, logit)
    user_auc, users = _grouped_auc(user, clicked, logit)
    empty = not logit.size
    loss = math.nan if empty else float(losses(clicked, logit).mean())
    prediction = math.nan if empty else float(probabilities(logit).mean())
    return {
        "auc": auc_of_counts(*counts),
        "auc_se": auc_standard_error_of_counts(*counts),
        "gauc": user_auc,
        "gauc_users": users,
        "log_loss": loss,
        **ratios(loss, prediction, math.nan if empty else float(clicked.mean())),
        "evaluated_examples": int(logit.size),
    }
