import numpy as np
import pytest

from suan_jax.data.assembly import EvaluationBatch
from suan_jax.evaluation import evaluator, metrics
from tests.random_batch import random_batch, random_schema

_SCHEMA = random_schema()
_SIZE = 64


def _items(seed, examples=150):
    """Batches of one candidate a row, the last one padded, with a logit for each in `dense`."""
    items = []
    for start in range(0, examples, _SIZE):
        batch = random_batch(seed + start, _SCHEMA, rows=_SIZE, length=2)
        rng = np.random.default_rng(seed + start)
        mask = np.arange(_SIZE)[:, None] < examples - start
        label = rng.integers(0, 2, (_SIZE, 1)).astype(np.float32)
        logit = (label + rng.normal(size=label.shape)).astype(np.float32)
        batch = batch.replace(candidate_mask=mask, label=label, dense=logit[:, :, None])
        items.append(EvaluationBatch(batch, rng.integers(0, 20, _SIZE), {"unlimited": 2 * logit}))
    return items


def _logits(item):
    return item.batch.dense[:, :, 0]


def _valid(items):
    rows = [item.batch.candidate_mask[:, 0] for item in items]
    return (
        np.concatenate([item.user[mask] for item, mask in zip(items, rows, strict=True)]),
        np.concatenate([item.batch.label[mask, 0] for item, mask in zip(items, rows, strict=True)]),
        np.concatenate([item.batch.dense[mask, 0, 0] for item, mask in zip(items, rows, strict=True)]),
    )


@pytest.mark.smoke
def test_every_example_counts_once_and_no_pad_does():
    items = _items(0)
    user, label, logit = _valid(items)
    result = evaluator.evaluate(items, _logits, 1.0, examples=150)
    expected = metrics.evaluate(user, label, logit)
    assert expected["evaluated_examples"] == 150
    assert {name: result[name] for name in expected} == expected
    assert result["bayes_auc"] == expected["auc"]  # twice the logit ranks alike
    assert result["bayes_log_loss"] == metrics.log_loss(label, 2 * logit)


def test_logits_are_put_right_for_the_negatives_left_out():
    items = _items(1)
    scores = evaluator.score(items, _logits, negative_rate=0.25)
    np.testing.assert_allclose(scores.logit, _valid(items)[2] + np.log(0.25), rtol=1e-6)


def test_above_the_limit_a_histogram_stands_in():
    items = _items(2)
    exact = evaluator.evaluate(items, _logits, 0.5, examples=150)
    rough = evaluator.evaluate(items, _logits, 0.5, examples=150, exact_limit=100)
    assert abs(rough["auc"] - exact["auc"]) <= rough["auc_error"]
    assert rough["log_loss"] == pytest.approx(exact["log_loss"], rel=1e-3)
    assert "gauc" not in rough


def test_the_table_holds_what_was_scored():
    scores = evaluator.score(_items(3), _logits)
    table = scores.table()
    for name in ("user", "label", "logit"):
        np.testing.assert_array_equal(table[name], getattr(scores, name))
