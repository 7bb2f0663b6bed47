import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.layers import masking
from suan_jax.layers.retrieval import gather_events, last_events, most_recent, top_k
from tests.random_batch import random_batch, random_schema


def reference(score, mask, k):
    """Slots by descending score, the most recent first among equals, allowed ones alone."""
    order = np.lexsort((np.arange(len(score)), score))[::-1]
    return [slot for slot in order if mask[slot]][:k]


@pytest.mark.smoke
@pytest.mark.parametrize("k", [1, 3, 8, 20])
@pytest.mark.parametrize("lowest", [-1e-3, -3e38, -np.inf])
def test_the_best_allowed_events_come_first_and_of_equals_the_most_recent(k, lowest):
    rng = np.random.default_rng(0)
    score = rng.choice([lowest, lowest / 2, 0.0], (4, 3, 8)).astype(np.float32)
    mask = rng.random((4, 3, 8)) < 0.5
    mask[0, 0], mask[0, 1] = False, True
    score = np.where(mask, score, 1e9).astype(np.float32)  # whatever stands at a pad
    found = top_k(jnp.asarray(score), jnp.asarray(mask), k)
    assert found.index_BxMxK.shape == (4, 3, min(k, 8))
    for b, m in np.ndindex(4, 3):
        expected = reference(score[b, m], mask[b, m], k)
        index, valid = np.asarray(found.index_BxMxK[b, m]), np.asarray(found.mask_BxMxK[b, m])
        np.testing.assert_array_equal(index[: len(expected)], expected)
        np.testing.assert_array_equal(valid, np.arange(len(index)) < len(expected))


def test_the_choice_has_no_gradient():
    mask = jnp.ones((1, 1, 4), bool)
    x = jnp.asarray([3.0, 1.0, 2.0, 4.0])
    gradient = jax.grad(lambda x: jnp.sum(x[top_k(x[None, None], mask, 2).index_BxMxK]))(x)
    np.testing.assert_array_equal(gradient, [1.0, 0.0, 0.0, 1.0])


@pytest.mark.parametrize("k", [3, 30])
@pytest.mark.parametrize("across_time", [False, True])
def test_the_last_events_are_those_that_a_search_for_the_most_recent_finds(k, across_time):
    batch = random_batch(1, random_schema(), candidates=3, lengths=[7, 6, 4, 1, 0], across_time=across_time)
    batch = batch.replace(candidate_mask=batch.candidate_mask.at[0, 1].set(False))
    last, searched = last_events(batch, k), most_recent(masking.candidate_visibility(batch), k)
    np.testing.assert_array_equal(last.mask_BxMxK, searched.mask_BxMxK)
    np.testing.assert_array_equal(*(np.where(f.mask_BxMxK, f.index_BxMxK, -1) for f in (last, searched)))
    seen = np.minimum(np.where(batch.candidate_mask, batch.visible, 0), k)
    np.testing.assert_array_equal(last.mask_BxMxK.sum(-1), seen)


def test_events_are_read_at_each_candidates_slots():
    rng = np.random.default_rng(2)
    x, index = rng.normal(size=(2, 5, 3)), rng.integers(0, 5, (2, 4, 6))
    taken = gather_events(jnp.asarray(x, jnp.float32), jnp.asarray(index))
    for b, m, k in np.ndindex(2, 4, 6):
        np.testing.assert_array_equal(taken[b, m, k], x[b, index[b, m, k]].astype(np.float32))
