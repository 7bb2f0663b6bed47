import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax.sharding import PartitionSpec

from suan_jax.batch import blank_batch
from suan_jax.config import Config, OptimizerConfig
from suan_jax.models import build
from suan_jax.models.suan import Suan
from suan_jax.training.optimizer import (
    decay_mask,
    dense_optimizer,
    global_norm,
    hidden_matrices,
    learning_rate_factor,
)
from tests.random_batch import random_schema

_PARAMS = {
    "blocks": {"query": jnp.ones((2, 3, 4)), "scale": jnp.ones((2, 3))},
    "head": {"kernel": jnp.ones((4, 1)), "bias": jnp.ones(1)},
    "plain": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)},
    "temperature": jnp.ones(()),
}
_AXES = {
    "blocks": {"query": PartitionSpec("layers", "embed", "heads"), "scale": PartitionSpec("layers", "embed")},
    "head": {"kernel": PartitionSpec("embed", None), "bias": PartitionSpec(None)},
    "plain": {"kernel": PartitionSpec(), "bias": PartitionSpec()},  # made without logical names
    "temperature": PartitionSpec(),
}


def _factors(steps=20, **settings):
    factor = learning_rate_factor(OptimizerConfig(**settings))
    return np.array([float(factor(jnp.int32(step), jnp.int32(steps))) for step in range(steps + 1)])


def _change(gradient, **settings):
    """What one step adds to the parameters."""
    config = OptimizerConfig(**{"learning_rate": 1.0, "schedule": "constant", **settings})
    optimizer = dense_optimizer(config, _AXES)
    return optimizer.update(gradient, optimizer.init(_PARAMS), _PARAMS)[0]


_ONES = jax.tree.map(jnp.ones_like, _PARAMS)
_ZEROS = jax.tree.map(jnp.zeros_like, _PARAMS)


@pytest.mark.smoke
def test_schedules():
    steps = np.arange(21)
    np.testing.assert_allclose(_factors(schedule="constant"), 1.0)
    np.testing.assert_allclose(_factors(schedule="linear"), 1 - steps / 20, atol=1e-6)
    np.testing.assert_allclose(_factors(schedule="cosine"), 0.5 * (1 + np.cos(np.pi * steps / 20)), atol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_warm_up_rises_to_the_peak_and_the_decay_still_ends_at_the_last_step(schedule):
    factors = _factors(schedule=schedule, warmup=0.2)
    np.testing.assert_allclose(factors[:5], [0.25, 0.4375, 0.625, 0.8125, 1.0])  # the first step moves
    without = _factors(16, schedule=schedule)
    np.testing.assert_allclose(factors[4:], without, atol=1e-6)


def test_matrices_alone_decay():
    mask = decay_mask(_PARAMS, _AXES)
    assert mask == {
        "blocks": {"query": True, "scale": False},
        "head": {"kernel": True, "bias": False},
        "plain": {"kernel": True, "bias": False},
        "temperature": False,
    }
    change = _change(_ZEROS, weight_decay=0.1)
    expected = jax.tree.map(lambda decays, leaf: leaf * (-0.1 if decays else 0.0), mask, _ONES)
    jax.tree.map(np.testing.assert_allclose, change, expected)


def test_the_first_multiplier_that_matches_a_path_applies():
    multipliers = (("^blocks/.*query", 0.5), ("blocks", 0.25), ("bias$", 0.0))
    change = _change(_ONES, multipliers=multipliers)
    factors = {
        "blocks": {"query": 0.5, "scale": 0.25},
        "head": {"kernel": 1.0, "bias": 0.0},
        "plain": {"kernel": 1.0, "bias": 0.0},
        "temperature": 1.0,
    }
    # Adam's first step is of size 1 wherever the gradient is not zero.
    expected = jax.tree.map(lambda factor, leaf: -factor * leaf, factors, _ONES)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), change, expected)


def test_hidden_matrices_are_those_of_which_both_sides_grow_with_the_width():
    config = Config(model=Suan(layers=2, head=(8,)))
    model = build(config, random_schema())
    axes = model.logical_axes(blank_batch(random_schema(), 1, config.data.max_len))["params"]
    hidden = traverse_util.flatten_dict(hidden_matrices(axes), sep="/")
    found = {path for path, is_hidden in hidden.items() if is_hidden}
    attention = {f"attention/{name}" for name in ("query", "key", "value", "out")}
    alignment = {f"alignment/{name}/kernel" for name in ("squeeze", "self", "cross")}
    feed_forward = {f"feed_forward/{name}/kernel" for name in ("gate", "value", "out")}
    cross = {f"cross_{name}" for name in attention}
    assert found == {f"blocks/{name}" for name in attention | alignment | feed_forward | cross}


def test_the_rate_of_hidden_matrices_is_their_own():
    change = _change(_ONES, hidden_rate=0.25, multipliers=(("query", 0.5),))
    np.testing.assert_allclose(change["blocks"]["query"], -0.125, rtol=1e-5)
    np.testing.assert_allclose(change["blocks"]["scale"], -1.0, rtol=1e-5)
    np.testing.assert_allclose(change["head"]["kernel"], -1.0, rtol=1e-5)


def test_a_multiplier_scales_decay_too():
    change = _change(_ZEROS, weight_decay=0.1, multipliers=(("query", 0.5),))
    np.testing.assert_allclose(change["blocks"]["query"], -0.05)


def test_gradients_above_the_norm_are_clipped_together():
    def moments(scale, clip):
        config = OptimizerConfig(clip=clip)
        optimizer = dense_optimizer(config, _AXES)
        gradient = jax.tree.map(lambda leaf: scale * leaf, _ONES)
        state = optimizer.update(gradient, optimizer.init(_PARAMS), _PARAMS)[1]
        return float(global_norm(state[1].mu)) * 10  # Adam keeps a tenth of the first gradient

    norm = float(np.sqrt(sum(leaf.size for leaf in jax.tree.leaves(_ONES))))
    assert moments(3.0, clip=2.0) == pytest.approx(2.0, rel=1e-5)
    assert moments(0.01, clip=2.0) == pytest.approx(0.01 * norm, rel=1e-5)
    assert moments(3.0, clip=0.0) == pytest.approx(3 * norm, rel=1e-5)


def test_the_global_norm_is_taken_in_float32():
    tree = {"a": jnp.full(3, 200.0, jnp.float16), "b": jnp.full(1, 200.0, jnp.float16)}
    assert float(global_norm(tree)) == 400.0  # squares of 200 do not fit float16
