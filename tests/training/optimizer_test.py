import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from suan_jax.config import OptimizerConfig
from suan_jax.training.optimizer import decay_mask, dense_optimizer, learning_rate_factor

PARAMS = {
    "blocks": {"kernel": jnp.ones((2, 3, 4)), "scale": jnp.ones((2, 4))},
    "plain": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)},
}
AXES = {
    "blocks": {"kernel": PartitionSpec("layers", "embed", "mlp"), "scale": PartitionSpec("layers", "embed")},
    "plain": {"kernel": PartitionSpec(), "bias": PartitionSpec()},  # made without logical names
}


def first_update(gradient=0.0, **settings):
    """What the first step adds to parameters of 1."""
    config = OptimizerConfig(**settings)
    optimizer = dense_optimizer(config, learning_rate_factor(config, 10), AXES)
    state = optimizer.init(PARAMS)
    gradients = {
        group: {name: jnp.full(leaf.shape, gradient) for name, leaf in leaves.items()}
        for group, leaves in PARAMS.items()
    }
    return optimizer.update(gradients, state, PARAMS)[0]


@pytest.mark.smoke
def test_matrices_decay_and_stacked_vectors_do_not():
    assert decay_mask(PARAMS, AXES) == {
        "blocks": {"kernel": True, "scale": False},
        "plain": {"kernel": True, "bias": False},
    }
    update = first_update(learning_rate=0.1, weight_decay=0.5)
    np.testing.assert_allclose(update["plain"]["kernel"], -0.05)
    np.testing.assert_allclose(update["blocks"]["kernel"], -0.05)
    assert not update["blocks"]["scale"].any() and not update["plain"]["bias"].any()


def test_the_first_multiplier_that_matches_applies():
    update = first_update(1.0, learning_rate=0.1, multipliers=(("blocks/kernel", 0.5), ("blocks", 0.1)))
    np.testing.assert_allclose(update["blocks"]["kernel"], -0.05, rtol=1e-5)
    np.testing.assert_allclose(update["blocks"]["scale"], -0.01, rtol=1e-5)
    np.testing.assert_allclose(update["plain"]["kernel"], -0.1, rtol=1e-5)


def test_clipping_bounds_the_global_norm():
    config = OptimizerConfig(clip=1.0)
    optimizer = dense_optimizer(config, learning_rate_factor(config, 10), AXES)
    large = {group: {n: 100 * leaf for n, leaf in leaves.items()} for group, leaves in PARAMS.items()}
    _, state = optimizer.update(large, optimizer.init(PARAMS), PARAMS)
    first_moment = optax.tree.get(state, "mu")
    np.testing.assert_allclose(optax.global_norm(first_moment), 0.1, rtol=1e-5)  # (1 - b1) · clip


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [1, 1, 1]), ("linear", [1, 0.5, 0]), ("cosine", [1, 0.5, 0])],
)
def test_schedules_after_a_warm_up(schedule, expected):
    config = OptimizerConfig(schedule=schedule, warmup=4)
    factor = learning_rate_factor(config, 104)
    np.testing.assert_allclose([factor(step) for step in (4, 54, 104)], expected, atol=1e-6)
    np.testing.assert_allclose([factor(step) for step in range(4)], [0.25, 0.4375, 0.625, 0.8125], atol=1e-6)
