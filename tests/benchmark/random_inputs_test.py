import numpy as np
import pytest

from suan_jax.benchmark.random_inputs import full_batch, zipf_ids
from suan_jax.schema import OOV
from tests.random_batch import random_schema


@pytest.mark.parametrize("num_ids", [3, 10, 100_000])
def test_ids_are_real_ones_of_the_vocabulary(num_ids):
    ids = zipf_ids(np.random.default_rng(0), num_ids, (20_000,))
    assert ids.dtype == np.int32
    assert ids.min() > OOV and ids.max() < num_ids


def test_few_ids_are_frequent_and_lie_apart():
    ids = zipf_ids(np.random.default_rng(0), 100_000, (50_000,))
    values, counts = np.unique(ids, return_counts=True)
    order = np.argsort(-counts)
    # 1 / r over 100,000 ranks: the first has ln 2 / ln 100,000 = 6 % of the draws.
    assert counts[order[0]] / len(ids) == pytest.approx(np.log(2) / np.log(100_000), rel=0.1)
    assert len(values) > 10_000
    assert np.abs(np.diff(values[order[:10]])).min() > 100


@pytest.mark.smoke
def test_a_batch_is_full_and_never_of_zeros():
    schema = random_schema()
    batch = full_batch(np.random.default_rng(0), schema, 16, 9)
    for group in ("history", "candidate", "profile", "context"):
        for name, ids in batch.group(group).items():
            assert (ids > OOV).all(), name
    assert batch.history_mask.all() and batch.history_timed.all() and batch.candidate_mask.all()
    assert (batch.visible == 9).all()
    assert (np.diff(batch.history_age, axis=1) <= 0).all() and batch.history_age.min() > 0
    assert batch.dense.std() > 0 and 0 < batch.label.mean() < 1


def test_packed_candidates_see_what_lies_before_them():
    batch = full_batch(np.random.default_rng(0), random_schema(), 16, 9, candidates=4)
    assert (batch.visible[:, -1] == 9).all() and (batch.candidate_age[:, -1] == 0).all()
    assert batch.visible.min() >= 4 and (np.diff(batch.visible, axis=1) >= 0).all()
    before = batch.history_age[:, None] >= batch.candidate_age[:, :, None]
    seen = np.arange(9) < batch.visible[:, :, None]
    np.testing.assert_array_equal(before & ~seen, False)
