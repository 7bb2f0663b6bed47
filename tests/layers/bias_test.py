import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.layers import masking, time_buckets
from suan_jax.layers.bias import PositionBias, TimeBias, lookup
from tests.random_batch import random_batch, random_schema


@pytest.mark.smoke
@pytest.mark.parametrize("shape", [(11,), (11, 3)])
def test_lookup_and_its_gradient_are_the_plain_ones(shape):
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=shape), jnp.float32)
    bins = jnp.asarray(rng.integers(0, 11, (4, 5, 6)))
    weight = jnp.asarray(rng.normal(size=(*bins.shape, *shape[1:])), jnp.float32)

    def loss(read, table):
        return jnp.sum(weight * jnp.sin(read(table, bins)))

    own, plain = (
        jax.jit(jax.value_and_grad(lambda table, read=read: loss(read, table)))(table)
        for read in (lookup, lambda table, bins: table[bins])
    )
    np.testing.assert_allclose(own[0], plain[0], rtol=1e-6)
    np.testing.assert_allclose(own[1], plain[1], rtol=1e-5, atol=1e-6)


def test_lookup_clips_in_both_directions():
    table = jnp.arange(4.0)
    bins = jnp.array([[-3, 9]])
    np.testing.assert_array_equal(lookup(table, bins), [[0.0, 3.0]])
    np.testing.assert_array_equal(jax.grad(lambda t: lookup(t, bins).sum())(table), [1.0, 0, 0, 1.0])


def test_lookup_sums_in_float32_from_bfloat16():
    bins = jnp.zeros((1, 3000), jnp.int32)
    gradient = jax.grad(lambda table: lookup(table, bins).astype(jnp.bfloat16).sum().astype(jnp.float32))(
        jnp.zeros(2)
    )
    np.testing.assert_array_equal(gradient, [3000.0, 0.0])  # bfloat16 sums of ones stop at 256


@pytest.mark.parametrize("across_time", [False, True])
def test_position_bias_reads_differences_of_positions_counted_back(across_time):
    max_tokens = 9
    batch = random_batch(1, random_schema(), length=6, candidates=2, across_time=across_time)
    table = jnp.arange(2.0 * max_tokens - 1)
    bias = PositionBias(max_tokens).apply({"params": {"table": table}}, batch)
    seen = np.asarray(masking.visibility(batch))
    length = batch.history_mask.shape[1]
    for b, i, j in np.argwhere(seen):
        # Back from the most recent event, which is 1: a candidate stands where the next event would.
        reference = 50
        order = [*range(length), *np.asarray(batch.visible[b])]
        back_i, back_j = reference - order[i], reference - order[j]
        assert bias[b, i, j] == table[back_i - back_j + max_tokens - 1]
    assert seen.any()


@pytest.mark.parametrize("across_time", [False, True])
def test_time_bias_reads_the_bucket_of_the_time_between(across_time):
    batch = random_batch(2, random_schema(), length=6, candidates=2, across_time=across_time)
    table = jnp.arange(130.0)
    tokens = masking.token_age(batch), masking.token_timed(batch)
    bias = TimeBias().apply({"params": {"table": table}}, time_buckets.pair_buckets(*tokens, *tokens))
    age = np.concatenate([batch.history_age, batch.candidate_age], axis=1).astype(np.int64)
    timed = np.concatenate([batch.history_timed, batch.candidate_mask], axis=1)
    expected = time_buckets.host_bucket(age[:, :, None] - age[:, None, :])
    expected = np.where(timed[:, :, None] & timed[:, None, :], expected, 129)
    seen = np.asarray(masking.visibility(batch))
    np.testing.assert_array_equal(np.asarray(bias)[seen], expected[seen])
    assert len(np.unique(expected[seen])) > 5
