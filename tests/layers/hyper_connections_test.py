import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from suan_jax.layers.hyper_connections import HyperConnection, make_streams, reduce_streams
from suan_jax.training.optimizer import decay_mask

RNG = np.random.default_rng(0)
STREAMS, WIDTH = 3, 8


def random_streams(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(2, 5, STREAMS, WIDTH)), jnp.float32)


def sublayer(x):
    return jnp.sin(3 * x) + 0.1


def step(params, h, index):
    def run(module, h):
        u, write = module(h)
        return write(sublayer(u))

    return HyperConnection(index).apply({"params": params}, h, method=run)


def initial(index):
    return nn.meta.unbox(HyperConnection(index).init(jax.random.key(0), random_streams())["params"])


@pytest.mark.smoke
def test_at_the_start_every_stream_is_the_residual_at_every_depth():
    x = jnp.asarray(RNG.normal(size=(2, 5, WIDTH)), jnp.float32)
    h = make_streams(x, STREAMS)
    for index in range(6):
        h, x = step(initial(index), h, index), x + sublayer(x)
        np.testing.assert_allclose(h, make_streams(x, STREAMS), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(reduce_streams(h), x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("index", [0, 1, 5])
def test_at_the_start_a_sublayer_reads_the_stream_of_its_index(index):
    h = random_streams()
    u, write = HyperConnection(index).apply({"params": initial(index)}, h)
    np.testing.assert_array_equal(u, h[:, :, index % STREAMS])
    np.testing.assert_allclose(write(u), h + u[:, :, None], atol=1e-6)


def test_it_is_its_equations():
    leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, initial(1)))
    p = jax.tree.unflatten(tree, [leaf + RNG.normal(size=leaf.shape) for leaf in leaves])
    h = random_streams()
    out = step(jax.tree.map(jnp.float32, p), h, 1)
    for b, t in np.ndindex(2, 5):
        x = np.asarray(h[b, t], np.float64)
        bar = p["norm"]["scale"] * x / (np.sqrt(np.mean(x**2, 1, keepdims=True)) + 1e-6)
        w_m, w_r, w_b = p["kernel"][:, 0], p["kernel"][:, 1:-1], p["kernel"][:, -1]
        a_m = p["read"] + p["scale_alpha"] * np.tanh(bar @ w_m)
        a_r = p["mix"].reshape(STREAMS, STREAMS) + p["scale_alpha"] * np.tanh(bar @ w_r)
        b_write = p["write"] + p["scale_beta"] * np.tanh(bar @ w_b)
        y = np.sin(3 * (a_m @ x)) + 0.1
        np.testing.assert_allclose(out[b, t], a_r.T @ x + np.outer(b_write, y), rtol=1e-4, atol=1e-4)


def test_one_stream_is_the_plain_residual_without_parameters():
    h = random_streams()[:, :, :1]
    assert HyperConnection(0).init(jax.random.key(0), h) == {}
    np.testing.assert_array_equal(step({}, h, 0), h + sublayer(h))


def test_static_coefficients_and_scales_take_no_weight_decay():
    params = initial(0)
    decayed = decay_mask(params, jax.tree.map(lambda leaf: ("x",) * leaf.ndim, params))
    assert [name for name, value in decayed.items() if value is True] == ["kernel"]
