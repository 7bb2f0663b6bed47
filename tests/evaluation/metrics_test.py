import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from suan_jax.errors import UserError
from suan_jax.evaluation import metrics


def _examples(seed: int, n: int = 3000, ties: bool = True, users: int = 200):
    rng = np.random.default_rng(seed)
    logit = rng.normal(-2.0, 1.5, n)
    label = (rng.random(n) < 1 / (1 + np.exp(-logit - 0.3 * rng.normal(size=n)))).astype(np.float32)
    return rng.integers(0, users, n), label, np.round(logit, 1) if ties else logit


@pytest.mark.smoke
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_auc_and_log_loss_are_scikit_learns(ties, dtype):
    _, label, logit = _examples(0, ties=ties)
    logit = logit.astype(dtype)
    assert metrics.auc(label, logit) == pytest.approx(sklearn_metrics.roc_auc_score(label, logit), abs=1e-12)
    expected = sklearn_metrics.log_loss(label, 1 / (1 + np.exp(-logit.astype(np.float64))))
    assert metrics.log_loss(label, logit) == pytest.approx(expected, abs=1e-12)


def test_auc_of_equal_scores_is_a_half_and_of_a_perfect_order_one():
    label = np.array([0, 1, 1, 0])
    assert metrics.auc(label, np.zeros(4)) == 0.5
    assert metrics.auc(label, np.array([0.0, -0.0, 0.0, -0.0])) == 0.5
    assert metrics.auc(label, label.astype(float)) == 1.0
    assert metrics.auc(label, -label.astype(float)) == 0.0


@pytest.mark.parametrize("ties", [False, True])
def test_standard_error_is_delongs_over_all_pairs(ties):
    _, label, score = _examples(1, n=700, ties=ties)
    positive, negative = score[label == 1], score[label == 0]
    kernel_PxN = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = kernel_PxN.mean(1).var(ddof=1) / len(positive) + kernel_PxN.mean(0).var(ddof=1) / len(negative)
    assert metrics.auc_standard_error(label, score) == pytest.approx(math.sqrt(variance), rel=1e-12)


def test_standard_error_is_the_spread_of_a_bootstrap():
    _, label, score = _examples(2, n=2000)
    rng = np.random.default_rng(0)
    draws = (rng.integers(0, len(label), len(label)) for _ in range(400))
    spread = np.std([metrics.auc(label[draw], score[draw]) for draw in draws])
    assert metrics.auc_standard_error(label, score) == pytest.approx(spread, rel=0.12)


@pytest.mark.parametrize("ties", [False, True])
def test_the_error_of_a_difference_is_the_spread_of_a_paired_bootstrap(ties):
    _, label, first = _examples(4, n=2000, ties=ties)
    rng = np.random.default_rng(0)
    second = first + rng.normal(scale=0.3, size=len(first))
    difference, error = metrics.auc_difference(label, first, second)
    assert difference == pytest.approx(metrics.auc(label, first) - metrics.auc(label, second), abs=1e-12)
    draws = (rng.integers(0, len(label), len(label)) for _ in range(400))
    spread = np.std([metrics.auc_difference(label[d], first[d], second[d])[0] for d in draws])
    assert error == pytest.approx(spread, rel=0.12)
    assert error < metrics.auc_standard_error(label, first) / 2  # they err on the same examples
    # Against a score that says nothing and never varies, it is the other AUC's own error.
    assert metrics.auc_difference(label, first, np.zeros_like(first)) == pytest.approx(
        (metrics.auc(label, first) - 0.5, metrics.auc_standard_error(label, first))
    )
    assert np.isnan(metrics.auc_difference(np.zeros(3), np.arange(3), np.arange(3))).all()


@pytest.mark.smoke
@pytest.mark.parametrize("ties", [False, True])
def test_gauc_is_a_loop_over_users(ties):
    user, label, score = _examples(3, ties=ties)
    weights, aucs = [], []
    for one in np.unique(user):
        mine = user == one
        if 0 < label[mine].sum() < mine.sum():
            weights.append(mine.sum())
            aucs.append(sklearn_metrics.roc_auc_score(label[mine], score[mine]))
    assert len(aucs) < len(np.unique(user))  # some users have a single class
    assert metrics.gauc(user, label, score) == pytest.approx(np.average(aucs, weights=weights), abs=1e-12)
    assert metrics.evaluate(user, label, score)["gauc_users"] == len(aucs)


def test_gauc_ignores_shifts_of_a_users_scores():
    user, label, score = _examples(4)
    assert metrics.gauc(user, label, score + 100.0 * user) == metrics.gauc(user, label, score)
    assert metrics.auc(label, score + 100.0 * user) != metrics.auc(label, score)


@pytest.mark.parametrize("ties", [False, True])
def test_no_metric_depends_on_the_order_of_examples(ties):
    user, label, logit = _examples(5, ties=ties)
    shuffle = np.random.default_rng(1).permutation(len(label))
    before = metrics.evaluate(user, label, logit)
    after = metrics.evaluate(user[shuffle], label[shuffle], logit[shuffle])
    assert all(math.isfinite(value) for value in before.values())
    assert after == pytest.approx(before, rel=1e-13)
    for name in ("auc", "auc_se", "gauc", "gauc_users", "evaluated_examples"):
        assert after[name] == before[name]


def test_log_loss_is_finite_and_exact_at_extreme_logits():
    assert metrics.log_loss([1, 0], np.array([-1e4, 1e4], np.float32)) == 1e4
    assert metrics.log_loss([0], [-50.0]) == pytest.approx(math.exp(-50.0), rel=1e-12)
    assert metrics.calibration([1], [-800.0]) >= 0.0


def test_normalized_entropy_of_the_click_rate_is_one():
    label = np.array([1, 0, 0, 0, 0])
    at_rate = np.full(5, math.log(0.25))  # odds of a click rate of 1/5
    assert metrics.normalized_entropy(label, at_rate) == pytest.approx(1.0, abs=1e-12)
    assert metrics.calibration(label, at_rate) == pytest.approx(1.0, abs=1e-12)
    assert metrics.calibration(label, at_rate + math.log(2)) == pytest.approx(5 / 3, abs=1e-12)


@pytest.mark.parametrize("rate", [0.1, 0.2, 1.0])
def test_down_sampling_correction_is_the_formula(rate):
    logit = np.linspace(-9, 9, 50)
    p = 1 / (1 + np.exp(-logit))
    corrected = 1 / (1 + np.exp(-metrics.correct_for_down_sampling(logit, rate)))
    np.testing.assert_allclose(corrected, p / (p + (1 - p) / rate), rtol=1e-12)


def test_down_sampling_correction_calibrates_a_sampled_log():
    rng = np.random.default_rng(0)
    logit = rng.normal(-2, 1, 400_000)
    label = rng.random(logit.size) < 1 / (1 + np.exp(-logit))
    # A model fitted to a sample with a tenth of the negatives learns odds ten times too high.
    learnt = logit + math.log(10)
    assert metrics.calibration(label, learnt) > 2
    assert metrics.calibration(label, metrics.correct_for_down_sampling(learnt, 0.1)) == pytest.approx(
        1, abs=0.02
    )


@pytest.mark.parametrize("rate", [0.0, 1.5, math.nan])
def test_an_impossible_rate_is_refused(rate):
    with pytest.raises(UserError, match=r"data\.negative_rate is"):
        metrics.correct_for_down_sampling(np.zeros(1), rate)


@pytest.mark.parametrize("label", [[0, 0, 0], [1, 1, 1], []])
def test_one_class_has_no_ranking(label):
    result = metrics.evaluate(np.zeros(len(label), int), label, np.arange(len(label), dtype=float))
    for name in ("auc", "auc_se", "gauc", "ne"):
        assert math.isnan(result[name])
    assert math.isnan(metrics.auc(label, np.zeros(len(label))))
    assert result["evaluated_examples"] == len(label)
    assert math.isfinite(result["log_loss"]) == bool(label)


def test_what_is_wrong_is_counted():
    logit = np.zeros(5)
    logit[1], logit[3] = np.nan, np.inf
    for call in (metrics.auc, metrics.log_loss, metrics.calibration, metrics.normalized_entropy):
        with pytest.raises(UserError, match="2 of 5 scores are NaN or infinite"):
            call(np.zeros(5), logit)
    with pytest.raises(UserError, match="2 of 5 scores"):
        metrics.evaluate(np.zeros(5), np.zeros(5), logit)
    with pytest.raises(UserError, match=r"a label is 0\.5"):
        metrics.auc([0, 1, 0.5], np.zeros(3))
    with pytest.raises(UserError, match=r"labels are \(2,\) and scores \(3,\)"):
        metrics.auc([0, 1], np.zeros(3))
    with pytest.raises(UserError, match=r"users are \(1,\) and labels \(2,\)"):
        metrics.gauc([0], [0, 1], np.zeros(2))
