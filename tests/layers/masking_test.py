import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.layers import alignment, masking
from tests.random_batch import random_batch, random_schema


@pytest.mark.smoke
@pytest.mark.parametrize("across_time", [False, True])
def test_who_sees_whom(across_time):
    batch = random_batch(3, random_schema(), length=5, candidates=3, across_time=across_time)
    batch = batch.replace(candidate_mask=batch.candidate_mask.at[0, 1].set(False))
    seen = np.asarray(masking.visibility(batch))
    length = batch.history_mask.shape[1]
    for b, i, j in np.ndindex(seen.shape):
        event = np.asarray(batch.history_mask[b])
        candidate = np.asarray(batch.candidate_mask[b])
        if i < length:
            expected = j <= i and event[i] and event[j]
        elif j < length:
            expected = candidate[i - length] and event[j] and j < batch.visible[b, i - length]
        else:
            expected = i == j and candidate[i - length]
        assert seen[b, i, j] == expected, (b, i, j)
    np.testing.assert_array_equal(masking.candidate_visibility(batch), seen[:, length:, :length])
    np.testing.assert_array_equal(masking.seen_events(batch), seen[:, length:, :length].any(1))


@pytest.mark.parametrize("pool", alignment.POOLS)
def test_pools_are_means_over_the_tokens_they_name(pool):
    batch = random_batch(4, random_schema(), length=5, candidates=2, across_time=True)
    batch = batch.replace(candidate_mask=batch.candidate_mask.at[0, 1].set(False))
    size, length = batch.history_mask.shape
    x = np.random.default_rng(0).normal(size=(size, length + 2, 3)).astype(np.float32)
    pooled = np.asarray(alignment.pool_tokens(pool, jnp.asarray(x), batch))
    seen = np.asarray(masking.seen_events(batch))
    for b in range(size):
        if pool == "causal":
            for t in np.flatnonzero(np.concatenate([seen[b], batch.candidate_mask[b]])):
                before = x[b, : t + 1] if t < length else x[b, : batch.visible[b, t - length]]
                own = x[b, t : t + 1] if t >= length else x[b, :0]
                expected = np.concatenate([before, own]).mean(0)
                np.testing.assert_allclose(pooled[b, t], expected, atol=1e-5)
        else:
            kept = [seen[b], np.asarray(batch.candidate_mask[b]) & (pool == "all")]
            tokens = x[b, np.concatenate(kept)]
            expected = tokens.mean(0) if len(tokens) else np.zeros(3)
            np.testing.assert_allclose(pooled[b, 0], expected, atol=1e-5)
