import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.layers.attention import MultiHeadAttention
from suan_jax.layers.cross_attention import CrossAttention, cross_attention_macs


def _inputs(tokens=7, keys=3, width=12, key_width=5):
    random = np.random.default_rng(0)
    x = random.normal(size=(4, tokens, width)).astype(np.float32)
    y = random.normal(size=(4, keys, key_width)).astype(np.float32)
    mask = np.array(
        [[True] * keys, [True] + [False] * (keys - 1), [False] * keys, [False] + [True] * (keys - 1)]
    )
    return x, y, mask


@pytest.mark.parametrize("heads", [1, 3])
def test_it_is_the_attention_that_projects_every_token(heads):
    x, y, mask = _inputs()
    plain, fast = MultiHeadAttention(heads), CrossAttention(heads)
    variables = plain.init(jax.random.key(0), x, y, None, mask[:, None])
    jax.tree.map(np.testing.assert_array_equal, variables, fast.init(jax.random.key(0), x, y, mask))

    def plain_loss(variables, x, y):
        return jnp.sum(jnp.sin(plain.apply(variables, x, y, None, mask[:, None])))

    def fast_loss(variables, x, y):
        return jnp.sum(jnp.sin(fast.apply(variables, x, y, mask)))

    np.testing.assert_allclose(
        fast.apply(variables, x, y, mask), plain.apply(variables, x, y, None, mask[:, None]), atol=1e-5
    )
    gradients = [jax.grad(loss, (0, 1, 2))(variables, x, y) for loss in (plain_loss, fast_loss)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *gradients)


def test_a_row_without_keys_is_zero_and_what_is_masked_counts_for_nothing():
    x, y, mask = _inputs()
    model = CrossAttention(2)
    variables = model.init(jax.random.key(0), x, y, mask)
    out = model.apply(variables, x, y, mask)
    assert (np.asarray(out[2]) == 0).all() and (np.abs(out[0]) > 0).all()
    other = model.apply(variables, x, np.where(mask[..., None], y, 1e3).astype(np.float32), mask)
    np.testing.assert_array_equal(out, other)


def test_its_multiply_adds_are_those_of_the_program():
    x, y, mask = _inputs(tokens=40, keys=3, width=64, key_width=16)
    model = CrossAttention(4)
    variables = model.init(jax.random.key(0), x, y, mask)
    cost = jax.jit(model.apply).lower(variables, x, y, mask).compile().cost_analysis()
    assert cost["flops"] / 4 == pytest.approx(2 * cross_attention_macs(40, 3, 64, 16, 4), rel=0.05)
