"""The optimizer of dense parameters, and the learning-rate schedule that tables share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from suan_jax.config import OptimizerConfig

Schedule = Callable[[jax.Array], jax.Array]


def learning_rate_factor(config: OptimizerConfig, total_steps: int) -> Schedule:
    """Share of the peak learning rate at each step: a linear warm-up, then the named decay to zero.

    Raises:
      KeyError: if the schedule's name is unknown (configs are validated before).
    """
    after = max(total_steps - config.warmup, 1)
    decays = {
        "constant": optax.constant_schedule(1.0),
        "linear": optax.linear_schedule(1.0, 0.0, after),
        "cosine": optax.cosine_decay_schedule(1.0, after),
    }
    decay = decays[config.schedule]
    if not config.warmup:
        return decay
    # The first step already moves: a rise from 0 would waste it.
    rise = optax.linear_schedule(1.0 / config.warmup, 1.0, config.warmup)
    return optax.join_schedules([rise, decay], [config.warmup])


def _by_path(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """Maps `function("a/b/c", leaf)` over a nested dict."""
    flat = traverse_util.flatten_dict(tree, sep="/")
    return traverse_util.unflatten_dict({path: function(path, leaf) for path, leaf in flat.items()}, sep="/")


def decay_mask(params: Any, logical_axes: Any) -> Any:
    """Which parameters are matrices: two axes or more, not counting the one that stacks layers."""
    return jax.tree.map(lambda leaf, axes: leaf.ndim - ("layers" in axes) >= 2, params, logical_axes)


def dense_optimizer(
    config: OptimizerConfig, factor: Schedule, logical_axes: Any
) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) with clipping and multipliers by name, at peak rate 1.

    Who applies its updates multiplies them by the peak rate first.

    Args:
      config: settings.
      factor: `learning_rate_factor`.
      logical_axes: tree of `PartitionSpec`s like the parameters.
    """

    def multiplier(path: str, leaf: Any) -> Any:
        matches = (scale for pattern, scale in config.multipliers if re.search(pattern, path))
        return leaf * next(matches, 1.0)

    return optax.chain(
        optax.clip_by_global_norm(config.clip) if config.clip else optax.identity(),
        optax.scale_by_adam(),
        optax.add_decayed_weights(config.weight_decay, mask=lambda params: decay_mask(params, logical_axes)),
        optax.stateless(lambda updates, _: _by_path(multiplier, updates)),
        optax.scale_by_schedule(lambda step: -factor(step)),
    )


def global_norm(tree: Any) -> jax.Array:
    """Euclidean norm over all leaves, in float32."""
    return optax.global_norm(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree))
