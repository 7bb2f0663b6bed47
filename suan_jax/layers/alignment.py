"""SUAN's dual alignment: channel weights that mix two branches, from a pooled state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.layers import history_cache, masking
from suan_jax.layers.dense import Dense

POOLS = ("history", "all", "causal")


def events_sum(x_BxTxD: jax.Array, batch: Batch) -> jax.Array:
    """The sum of the states of the events that the row's candidates see, (B, 1, D) float32."""
    seen_BxLx1 = masking.seen_events(batch)[:, :, None]
    x_BxLxD = x_BxTxD[:, : seen_BxLx1.shape[1]].astype(jnp.float32)
    return jnp.sum(jnp.where(seen_BxLx1, x_BxLxD, 0.0), axis=1, keepdims=True)


def pool_tokens(
    pool: str, x_BxTxD: jax.Array, batch: Batch, kept_Bx1xD: jax.Array | float = 0.0
) -> jax.Array:
    """The mean state that each token's channel weights are computed from, in float32.

    Args:
      pool: "history", over the valid events that the row's candidates see; "all", over those and the
        candidates; "causal", for each token over the tokens up to it (a candidate's: the events it sees and
        itself).
      x_BxTxD: states of the tokens of `batch`.
      batch: says which tokens are valid.
      kept_Bx1xD: the `events_sum` of the events if they are no tokens of `batch`, whose candidates see them.

    Returns:
      (B, T, D) for "causal", else (B, 1, D); zero where there is nothing to pool.
    """
    x_BxTxD = x_BxTxD.astype(jnp.float32)
    seen = masking.seen_events(batch)
    if pool == "causal":
        length = batch.history_mask.shape[1]
        sums_BxLxD = jnp.cumsum(jnp.where(seen[:, :, None], x_BxTxD[:, :length], 0.0), axis=1)
        before_BxLxD = jnp.pad(sums_BxLxD, ((0, 0), (1, 0), (0, 0)))
        taken_BxMxD = jnp.take_along_axis(before_BxLxD, batch.visible[:, :, None], axis=1, mode="clip")
        own_BxMxD = taken_BxMxD + kept_Bx1xD + x_BxTxD[:, length:]
        sums_BxTxD = jnp.concatenate([sums_BxLxD, own_BxMxD], axis=1)
        return sums_BxTxD / (masking.token_order(batch)[:, :, None] + 1)
    candidates = batch.candidate_mask if pool == "all" else jnp.zeros_like(batch.candidate_mask)
    weight_BxTx1 = jnp.concatenate([seen, candidates], axis=1)[:, :, None]
    total = jnp.sum(jnp.where(weight_BxTx1, x_BxTxD, 0.0), axis=1, keepdims=True) + kept_Bx1xD
    count = masking.seen_length(batch) + candidates.sum(1)
    return total / jnp.maximum(count, 1)[:, None, None]


class DualAlignment(nn.Module):
    """w_x ⊙ x + w_c ⊙ c, the two weights of a channel from a softmax over the branches, no biases.

    `e` = pooled (x + c), `z` = relu(e W0), D → D/4; [w_x; w_c] = softmax over (z W1, z W2).

    Attributes:
      pool: one of `POOLS`, see `pool_tokens`.
      dtype: dtype of the products.
    """

    pool: str
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, c_BxTxD: jax.Array, batch: Batch) -> jax.Array:
        """Mixes the states x and c of the tokens of `batch`."""
        width = x_BxTxD.shape[-1]

        def dense(name: str, features: int, axes: tuple[str, str]) -> Dense:
            return Dense(features, axes, use_bias=False, dtype=self.dtype, name=name)

        state = x_BxTxD + c_BxTxD
        if history_cache.reads(self):
            pooled = pool_tokens(self.pool, state, batch, history_cache.kept(self, "events_sum"))
        else:
            history_cache.keep(self, events_sum=events_sum(state, batch))
            pooled = pool_tokens(self.pool, state, batch)
        z = jax.nn.relu(dense("squeeze", max(width // 4, 1), ("embed", "mlp"))(pooled))
        score_x = dense("self", width, ("mlp", "embed"))(z)
        score_c = dense("cross", width, ("mlp", "embed"))(z)
        weight_x = jax.nn.sigmoid(score_x - score_c)  # a softmax over two
        return weight_x * x_BxTxD + (1 - weight_x) * c_BxTxD
