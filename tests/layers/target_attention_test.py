import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import meta

from suan_jax.layers import masking, time_buckets
from suan_jax.layers.target_attention import TargetAttention, TargetPool, time_gaps
from tests.random_batch import random_batch, random_schema


def softmax(x):
    weight = np.exp(x - x.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


@pytest.mark.smoke
def test_attention_is_its_projections_head_by_head():
    rng = np.random.default_rng(0)
    q, e = rng.normal(size=(2, 3, 6)), rng.normal(size=(2, 3, 5, 7))
    gap, mask = rng.integers(0, time_buckets.TABLE_ROWS, (2, 3, 5)), rng.random((2, 3, 5)) < 0.6
    mask[:, :, 0] = True
    attention = TargetAttention(heads=2, head_width=4, gap_width=3)
    arguments = (
        jnp.asarray(q, jnp.float32),
        jnp.asarray(e, jnp.float32),
        jnp.asarray(gap),
        jnp.asarray(mask),
    )
    fresh = meta.unbox(jax.jit(attention.init)(jax.random.key(0), *arguments))
    out = jax.jit(attention.apply)(fresh, *arguments)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), fresh["params"])
    assert params["gap_table"].shape == (130, 3)
    query, pool = params["query"], params["pool"]
    for b, m in np.ndindex(2, 3):
        x = np.concatenate([e[b, m], params["gap_table"][gap[b, m]]], axis=-1)[mask[b, m]]
        expected = np.zeros(8)
        for head in range(2):
            scores = (x @ query["key"][:, head]) @ (q[b, m] @ query["query"][:, head]) / np.sqrt(4)
            expected += softmax(scores) @ (x @ pool["value"][:, head]) @ pool["out"][head]
        np.testing.assert_allclose(out[b, m], expected, rtol=1e-4, atol=1e-5)


def test_a_candidate_without_an_event_gets_exactly_zero_and_a_finite_gradient():
    rng = np.random.default_rng(1)
    score, x = jnp.asarray(rng.normal(size=(1, 2, 3, 5))), jnp.asarray(100 * rng.normal(size=(1, 2, 5, 7)))
    mask = jnp.zeros((1, 2, 5), bool).at[0, 0, 3:].set(True)
    pool = TargetPool(heads=3, head_width=4)
    variables = meta.unbox(jax.jit(pool.init)(jax.random.key(0), score, mask, x))

    def total(score, x):
        out = pool.apply(variables, score, mask, x)
        return out.sum(), out

    gradients, out = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(score, x)
    assert (out[0, 1] == 0).all() and (out[0, 0] != 0).all()
    for gradient in jax.device_get(gradients):
        assert np.isfinite(gradient).all() and (gradient[0, 1] == 0).all() and gradient[0, 0].any()


@pytest.mark.parametrize("across_time", [False, True])
def test_a_time_gap_is_from_the_event_to_the_candidate(across_time):
    batch = random_batch(2, random_schema(), candidates=3, lengths=np.full(5, 7), across_time=across_time)
    seen, gaps = np.asarray(masking.candidate_visibility(batch)), np.asarray(time_gaps(batch))
    event, candidate = np.asarray(batch.history_age, np.int64), np.asarray(batch.candidate_age, np.int64)
    delta = event[:, None, :] - candidate[:, :, None]
    assert (delta[seen] > 0).all()
    expected = np.where(batch.history_timed[:, None], time_buckets.host_bucket(delta), time_buckets.UNKNOWN)
    np.testing.assert_array_equal(gaps[seen], expected[seen])
    assert (gaps[seen] == time_buckets.UNKNOWN).any() and len(np.unique(gaps[seen])) > 5
