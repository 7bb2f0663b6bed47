import math

import numpy as np
import pytest

from suan_jax.errors import UserError
from suan_jax.evaluation import metrics
from suan_jax.evaluation.histogram import Histogram


def _examples(seed: int, n: int, spread: float):
    rng = np.random.default_rng(seed)
    logit = rng.normal(-2.0, spread, n)
    return (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.uint8), logit


def _histogram(label, logit) -> Histogram:
    histogram = Histogram()
    histogram.add(label, logit)
    return histogram


# A spread of 1e-5 puts nearly everything into one bin, one of 30 much beyond the outermost.
@pytest.mark.parametrize("spread", [1e-5, 1e-3, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_true_auc_lies_within_the_bound(seed, spread):
    label, logit = _examples(seed, 20_000, spread)
    result = _histogram(label, logit).evaluate()
    error = abs(result["auc"] - metrics.auc(label, logit))
    assert error <= result["auc_error"] <= 0.5
    if spread == 1e-5:
        assert error > 0.0


def test_the_bound_is_reached_when_a_bin_is_in_perfect_order():
    result = _histogram(np.array([0, 1]), np.array([1e-6, 2e-6])).evaluate()
    assert (result["auc"], result["auc_error"]) == (0.5, 0.5)


def test_the_bound_is_below_the_standard_error_for_ordinary_predictions():
    result = _histogram(*_examples(0, 100_000, 1.0)).evaluate()
    assert result["auc_error"] < 0.05 * result["auc_se"]


@pytest.mark.smoke
def test_parts_add_up_to_the_exact_metrics():
    label, logit = _examples(7, 30_000, 1.5)
    parts = [_histogram(label[part::3], logit[part::3]) for part in range(3)]
    parts[0].add(label[:100], logit[:100])
    label, logit = np.append(label, label[:100]), np.append(logit, logit[:100])
    result = (parts[0] + parts[1] + parts[2]).evaluate()
    exact = metrics.evaluate(np.zeros(len(label), int), label, logit)
    for name in ("log_loss", "ne", "calibration"):
        assert result[name] == pytest.approx(exact[name], rel=1e-13)
    assert result["evaluated_examples"] == exact["evaluated_examples"]
    assert result["auc_se"] == pytest.approx(exact["auc_se"], rel=1e-3)


def test_an_empty_histogram_has_no_metrics():
    result = Histogram().evaluate()
    assert result.pop("evaluated_examples") == 0
    assert all(math.isnan(value) for value in result.values())


def test_a_refused_block_leaves_nothing_behind():
    histogram = _histogram([0, 1], [0.0, 1.0])
    with pytest.raises(UserError, match="1 of 2 scores"):
        histogram.add([0, 1], [math.nan, 1.0])
    assert histogram.evaluate()["evaluated_examples"] == 2
