"""The optimizer of dense parameters, and the learning-rate schedule that tables share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax.sharding import PartitionSpec

from suan_jax.config import OptimizerConfig


class Pace(NamedTuple):
    """How fast a run learns: arrays, so that runs of another pace need no other program.

    Attributes:
      dense: () float32, the peak learning rate of dense parameters.
      embedding: () float32, that of embedding tables.
      total_steps: () int32, the steps of the run, over which both decay.
    """

    dense: jax.Array
    embedding: jax.Array
    total_steps: jax.Array


Schedule = Callable[[jax.Array, jax.Array], jax.Array]
"""Share of the peak learning rate at a step, () int32, of a run of so many steps, () int32."""

_WIDE = ("embed", "mlp", "heads", "kv")  # logical axes that grow with a model's width


def pace(config: OptimizerConfig, total_steps: int) -> Pace:
    """The pace of a run of `total_steps`."""
    rates = config.learning_rate, config.embedding_learning_rate
    return Pace(*map(jnp.float32, rates), jnp.int32(total_steps))


def learning_rate_factor(config: OptimizerConfig) -> Schedule:
    """A linear warm-up, then the named decay, to zero unless it is constant.

    Raises:
      KeyError: if the schedule's name is unknown (configs are validated before).
    """
    decay = {
        "constant": jnp.ones_like,
        "linear": lambda done: 1 - done,
        "cosine": lambda done: 0.5 * (1 + jnp.cos(jnp.pi * done)),
    }[config.schedule]

    def factor(step: jax.Array, total_steps: jax.Array) -> jax.Array:
        warmup = jnp.ceil(config.warmup * total_steps)
        done = (step - warmup) / jnp.maximum(total_steps - warmup, 1)
        share = decay(jnp.clip(done, 0.0, 1.0))
        if not config.warmup:
            return share
        # The first step already moves: a rise from 0 would waste it.
        return jnp.where(step < warmup, (1 + (warmup - 1) * step / warmup) / warmup, share)

    return factor


def _by_path(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """Maps `function("a/b/c", leaf)` over a nested dict."""
    flat = traverse_util.flatten_dict(tree, sep="/")
    return traverse_util.unflatten_dict({path: function(path, leaf) for path, leaf in flat.items()}, sep="/")


def decay_mask(params: Any, logical_axes: Any) -> Any:
    """Which parameters are matrices: two axes or more, not counting the one that stacks layers."""
    return jax.tree.map(lambda leaf, axes: leaf.ndim - ("layers" in axes) >= 2, params, logical_axes)


def hidden_matrices(logical_axes: Any) -> Any:
    """Which parameters are matrices of which both sides grow with the model's width, from their axes."""

    def is_hidden(axes: PartitionSpec) -> bool:
        own = [axis for axis in axes if axis not in ("layers", "experts")]
        return len(own) >= 2 and own[0] in _WIDE and own[-1] in _WIDE

    return jax.tree.map(is_hidden, logical_axes)


def dense_optimizer(config: OptimizerConfig, logical_axes: Any) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) with clipping and multipliers by name, at a rate of 1.

    Who applies its updates multiplies them by the learning rate first.

    Args:
      config: settings.
      logical_axes: tree of `PartitionSpec`s like the parameters.
    """

    def multiplier(path: str, leaf: Any) -> Any:
        matches = (scale for pattern, scale in config.multipliers if re.search(pattern, path))
        return leaf * next(matches, 1.0)

    hidden = hidden_matrices(logical_axes)

    def at_width(update: jax.Array, is_hidden: bool) -> jax.Array:
        return update * config.hidden_rate if is_hidden else update

    return optax.chain(
        optax.clip_by_global_norm(config.clip) if config.clip else optax.identity(),
        optax.scale_by_adam(),
        optax.add_decayed_weights(config.weight_decay, mask=lambda params: decay_mask(params, logical_axes)),
        optax.stateless(lambda updates, _: jax.tree.map(at_width, _by_path(multiplier, updates), hidden)),
        optax.scale(-1.0),
    )


def global_norm(tree: Any) -> jax.Array:
    """Euclidean norm over all leaves, in float32."""
    return optax.tree.norm(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree))
