import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.kernels import time_cells
from suan_jax.layers import time_buckets

EDGES = tuple(int(edge) for edge in time_buckets.DEVICE_EDGES)


@pytest.mark.smoke
def test_a_cell_and_one_comparison_give_the_exact_bucket():
    edge, base = time_cells.cells(EDGES)
    near = np.concatenate([np.asarray(EDGES) + step for step in (-1, 0, 1)])
    random = np.random.default_rng(0).integers(0, 2**31, 10_000)
    gap = np.concatenate([near, random, [2**31 - 1]]).clip(0)
    cell = time_cells.cell_of(gap)
    bucket = np.minimum(base[cell] + (gap >= edge[cell]), len(EDGES) - 1)  # 2^31 − 1 reaches `LAST`
    np.testing.assert_array_equal(bucket, time_buckets.host_bucket(gap))


def test_edges_too_close_for_a_cell_are_refused():
    with pytest.raises(ValueError, match="1000 and 1010 of time buckets are too close"):
        time_cells.cells((0, 1000, 1010))


@pytest.mark.smoke
def test_the_reach_of_two_blocks_is_that_of_their_nearest_and_farthest_times():
    rng = np.random.default_rng(1)
    query, key = (np.sort(rng.choice(EDGES[:40], (2, 12, 2)), axis=1) for _ in range(2))  # gaps on edges too
    query[:, 0], query[0, 4:8], key[1, 5] = 0, -1, -1
    first, last = time_cells.reach(jnp.asarray(query), jnp.asarray(key), 4, 3, np.array([1, 0]), EDGES)
    for b, r, i, j in np.ndindex(first.shape):
        q, k = query[b, 4 * i : 4 * i + 4, r], key[b, 4 * j : 4 * j + 4, 1 - r]
        q, k = q[q >= 0], k[k >= 0]
        gaps = np.abs(q[:, None] - k)
        if not gaps.size:
            assert last[b, r, i, j] < first[b, r, i, j]
            continue
        bucket = time_buckets.host_bucket(gaps)
        assert last[b, r, i, j] == bucket.max() and first[b, r, i, j] <= bucket.min()
        if q.max() < k.min() or k.max() < q.min():
            assert first[b, r, i, j] == bucket.min()
