import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.layers import time_buckets

DAY = 86_400
SECONDS = [0, 1, 2, 10, 60, 600, 3600, DAY, 7 * DAY, 30 * DAY, 365 * DAY]
BUCKETS = [0, 0, 2, 7, 13, 21, 27, 37, 44, 49, 57]


def reference(delta):
    """The definition in 80-bit floating point, whose error is far below the gap of any int32 to an edge."""
    delta = np.maximum(np.abs(np.asarray(delta, np.int64)), 1).astype(np.longdouble)
    return np.clip(np.floor(np.log(delta) / np.longdouble("0.301")), 0, 128).astype(np.int32)


@pytest.mark.smoke
def test_known_values_on_host_and_device():
    delta = np.array(SECONDS)
    np.testing.assert_array_equal(time_buckets.host_bucket(delta), BUCKETS)
    np.testing.assert_array_equal(time_buckets.bucket(jnp.asarray(delta, jnp.int32)), BUCKETS)


def test_large_differences_exist_on_the_host():
    assert time_buckets.host_bucket(np.array([10**17, 2**62])).tolist() == [128, 128]
    assert len(time_buckets.EDGES) == time_buckets.NUM_BUCKETS
    assert (time_buckets.EDGES < 2**31).sum() == 72


def test_every_edge_and_its_neighbours():
    edges = time_buckets.EDGES[1:72]
    delta = np.concatenate([edges - 1, edges, edges + 1, [417_901, 2**31 - 1]])
    np.testing.assert_array_equal(time_buckets.host_bucket(delta), reference(delta))
    np.testing.assert_array_equal(
        jax.jit(time_buckets.bucket)(jnp.asarray(delta, jnp.int32)), reference(delta)
    )


def test_a_million_random_differences():
    rng = np.random.default_rng(0)
    delta = np.exp(rng.uniform(0, np.log(2**31 - 1), 1_000_000)).astype(np.int32)
    delta *= rng.choice([-1, 1], delta.size).astype(np.int32)
    expected = reference(delta)
    np.testing.assert_array_equal(time_buckets.host_bucket(delta.astype(np.int64)), expected)
    np.testing.assert_array_equal(jax.jit(time_buckets.bucket)(delta), expected)


def test_a_pair_with_an_unknown_time_reads_the_extra_row():
    age, timed = jnp.array([[2**31 - 1, 0, 60]], jnp.int32), jnp.array([[True, True, False]])
    bins = time_buckets.pair_buckets(age, timed, age, timed)
    unknown = time_buckets.UNKNOWN
    np.testing.assert_array_equal(bins[0], [[0, 71, unknown], [71, 0, unknown], [unknown] * 3])
