"""Relative biases of attention scores; small tables, and the lookup that makes their gradient cheap."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.layers import masking, time_buckets


def small_table(
    module: nn.Module, name: str, shape: tuple[int, ...], axes: tuple[str | None, ...] | None = None
) -> jax.Array:
    """A parameter to `lookup` in, float32 from N(0, 0.02²); for the compact method of a module.

    `axes` are the logical names of its axes; without them it is not partitioned.
    """
    init = nn.with_logical_partitioning(nn.initializers.normal(0.02), axes or (None,) * len(shape))
    return module.param(name, init, shape, jnp.float32)


@jax.custom_vjp
def lookup(table: jax.Array, bins: jax.Array) -> jax.Array:
    """table[bins], with a gradient that scatters into private bins.

    The plain gradient adds millions of values into a few hundred addresses, one after another: seconds on a
    GPU. Here each index of the leading axes of `bins` has bins of its own, and a sum over them follows.

    Args:
      table: (n,) or (n, width) float32.
      bins: (..., K) int32 in 0..n − 1; others are clipped.

    Returns:
      (..., K) or (..., K, width) float32.
    """
    return jnp.take(table, bins, axis=0, mode="clip")


def _lookup_forward(table, bins):
    return lookup(table, bins), (table, bins)


def _lookup_backward(residual, gradient):
    table, bins = residual
    size, width = table.shape[0], table.shape[1:]
    rows = bins.size // bins.shape[-1]
    own = jnp.arange(rows, dtype=jnp.int32)[:, None] * size
    index = own + jnp.clip(bins.reshape(rows, bins.shape[-1]), 0, size - 1)
    values = gradient.astype(jnp.float32).reshape(bins.size, *width)
    private = jax.ops.segment_sum(values, index.ravel(), rows * size)
    return private.reshape(rows, size, *width).sum(0).astype(table.dtype), None


lookup.defvjp(_lookup_forward, _lookup_backward)


class BiasTable(nn.Module):
    """The weights of a bias, `size` of them from N(0, 0.02²), for a caller that does the lookup.

    Attributes:
      size: number of weights; a `PositionBias` has 2n − 1, a `TimeBias` `time_buckets.TABLE_ROWS`.
    """

    size: int

    @nn.compact
    def __call__(self) -> jax.Array:
        """The table, (`size`,) float32."""
        return small_table(self, "table", (self.size,))


class PositionBias(nn.Module):
    """w[back_i − back_j + n − 1] on positions counted back from the candidate, 2n − 1 N(0, 0.02²).

    Attributes:
      max_tokens: n = max_len + 1, from the config and never from the padded length.
    """

    max_tokens: int

    @nn.compact
    def __call__(self, batch: Batch) -> jax.Array:
        """The bias of every visible pair of tokens, (B, T, T) float32."""
        table = small_table(self, "table", (2 * self.max_tokens - 1,))
        order = masking.token_order(batch)
        length = batch.history_mask.shape[1]

        def between(query: jax.Array, key: jax.Array) -> jax.Array:
            return lookup(table, key[..., None, :] - query[..., :, None] + self.max_tokens - 1)

        # Differences between history slots are the same in every row: one small lookup serves them all.
        slots = jnp.arange(length, dtype=jnp.int32)
        events = jnp.broadcast_to(between(slots, slots), (order.shape[0], length, length))
        unseen = jnp.zeros((order.shape[0], length, order.shape[1] - length))  # no event sees a candidate
        candidates = between(order[:, length:], order)
        return jnp.concatenate([jnp.concatenate([events, unseen], axis=2), candidates], axis=1)


class TimeBias(nn.Module):
    """w[bucket(|t_i − t_j|)], 129 buckets and one for an unknown time, weights from N(0, 0.02²)."""

    @nn.compact
    def __call__(self, bucket_BxTxS: jax.Array) -> jax.Array:
        """The bias of pairs of tokens from their `time_buckets.pair_buckets`, (B, T, S) float32."""
        return lookup(small_table(self, "table", (time_buckets.TABLE_ROWS,)), bucket_BxTxS)
