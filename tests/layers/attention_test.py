import jax
import jax.numpy as jnp
import numpy as np

from suan_jax.layers.attention import MultiHeadAttention, attention


def inputs(seed, size=2, queries=4, keys=5, heads=2, width=3):
    rng = np.random.default_rng(seed)
    q, k, v = (
        jnp.asarray(rng.normal(size=(size, n, heads, width)), jnp.float32) for n in (queries, keys, keys)
    )
    bias = jnp.asarray(rng.normal(size=(size, queries, keys)), jnp.float32)
    return q, k, v, bias, jnp.asarray(rng.random((size, queries, keys)) < 0.6)


def test_equals_the_definition_over_the_visible_keys_alone():
    q, k, v, bias, mask = inputs(0)
    out = attention(q, k, v, bias, mask)
    for b, t, h in np.ndindex(2, 4, 2):
        seen = np.flatnonzero(mask[b, t])
        score = np.asarray(k)[b, seen, h] @ np.asarray(q)[b, t, h] / np.sqrt(3) + np.asarray(bias)[b, t, seen]
        weight = np.exp(score) / np.exp(score).sum()
        np.testing.assert_allclose(out[b, t, h], weight @ np.asarray(v)[b, seen, h], atol=1e-5)


def test_a_query_without_keys_gives_zero_and_finite_gradients():
    q, k, v, bias, mask = inputs(1)
    mask = mask.at[0].set(False)
    assert (np.asarray(attention(q, k, v, bias, mask))[0] == 0).all()
    gradients = jax.grad(lambda *x: jnp.sum(attention(*x, mask) ** 2), argnums=(0, 1, 2, 3))(q, k, v, bias)
    assert all(np.isfinite(g).all() and (np.asarray(g)[0] == 0).all() for g in gradients)


def test_masked_keys_are_ignored_even_when_they_hold_large_values():
    q, k, v, bias, mask = inputs(2)
    out = attention(q, k, v, bias, mask)
    unseen = ~mask.any(1)[:, :, None, None]
    assert unseen.any() or not mask.all()
    changed = attention(q, k, v, jnp.where(mask, bias, 1e6), mask)
    np.testing.assert_array_equal(out, changed)


def test_bfloat16_keeps_its_dtype_and_a_float32_softmax():
    q, k, v, bias, mask = inputs(3)
    out = attention(*(x.astype(jnp.bfloat16) for x in (q, k, v, bias)), mask)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), attention(q, k, v, bias, mask), atol=0.05)


def test_projections_map_another_width_into_the_queries_width():
    x, y = jnp.ones((2, 4, 6)), jnp.ones((2, 3, 5))
    mask = jnp.ones((2, 1, 3), bool)
    out, variables = MultiHeadAttention(2).init_with_output(jax.random.key(0), x, y, None, mask)
    assert out.shape == (2, 4, 6)
    sizes = {name: leaf.unbox().shape for name, leaf in variables["params"].items()}
    assert sizes == {"query": (6, 2, 3), "key": (5, 2, 3), "value": (5, 2, 3), "out": (2, 3, 6)}
