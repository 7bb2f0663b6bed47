"""Attention of each candidate over events of its own, at a cost that suits one query per set of keys.

A head's score (q W_q)(k W_k)ᵀ is (q W_q W_kᵀ) kᵀ: the candidate goes into the keys' space once, and a key of
width C costs C multiply-adds a head in place of C·Dh. Likewise Σ_k w_k (x_k W_v) is (Σ_k w_k x_k) W_v.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.layers import time_buckets
from suan_jax.layers.attention import MASKED, kernel_into_heads, project_heads
from suan_jax.layers.bias import lookup, small_table


def time_gaps(batch: Batch) -> jax.Array:
    """Buckets of the time from each event to each candidate, (B, M, L) int32.

    Meaningless where the candidate does not see the event; `time_buckets.UNKNOWN` at an unknown time.
    """
    timed = jnp.ones_like(batch.candidate_mask)
    return time_buckets.pair_buckets(batch.candidate_age, timed, batch.history_age, batch.history_timed)


class TargetQuery(nn.Module):
    """q W_q W_kᵀ, each head's query as a vector in the keys' space; no biases, float32 throughout.

    Attributes:
      heads: H.
      head_width: Dh.
      key_width: C.
    """

    heads: int
    head_width: int
    key_width: int

    @nn.compact
    def __call__(self, q_BxMxQ: jax.Array) -> jax.Array:
        """Queries (B, M, H, C), to be scored by `target_scores`."""
        split = self.heads, self.head_width
        w_query = kernel_into_heads(self, "query", q_BxMxQ.shape[-1], *split)
        w_key = kernel_into_heads(self, "key", self.key_width, *split)
        q_BxMxHxDh = jnp.einsum("bmq,qhd->bmhd", q_BxMxQ, w_query, precision="highest")
        return jnp.einsum("bmhd,chd->bmhc", q_BxMxHxDh, w_key, precision="highest")


def target_scores(q_BxMxHxC: jax.Array, k_BxMxNxC: jax.Array) -> jax.Array:
    """Scores (B, M, H, N), float32, of N keys for each candidate; the keys' M axis may be 1."""
    # The highest precision, for a search must not depend on the hardware's idea of a float32 product.
    return jnp.matmul(
        q_BxMxHxC.astype(k_BxMxNxC.dtype),
        jnp.swapaxes(k_BxMxNxC, -1, -2),
        precision="highest",
        preferred_element_type=jnp.float32,
    )


class TargetPool(nn.Module):
    """softmax(scores) (x W_v) of every head, side by side, times W_o; no biases.

    Attributes:
      heads: H.
      head_width: Dh.
      dtype: dtype of the products; the softmax is float32.
    """

    heads: int
    head_width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, score_BxMxHxK: jax.Array, mask_BxMxK: jax.Array, x_BxMxKxE: jax.Array) -> jax.Array:
        """What each candidate gets, (B, M, H·Dh); exactly zero where `mask` leaves it no event."""
        weight = jax.nn.softmax(jnp.where(mask_BxMxK[:, :, None], score_BxMxHxK, MASKED), axis=-1)
        pooled_BxMxHxE = jnp.matmul(weight.astype(self.dtype), x_BxMxKxE.astype(self.dtype))
        value = kernel_into_heads(self, "value", x_BxMxKxE.shape[-1], self.heads, self.head_width)
        v_BxMxHxDh = jnp.einsum("bmhe,ehd->bmhd", pooled_BxMxHxE, value.astype(self.dtype))
        v_BxMxD = project_heads(self, "out", v_BxMxHxDh)
        return jnp.where(mask_BxMxK.any(-1, keepdims=True), v_BxMxD, 0)


class TargetAttention(nn.Module):
    """Multi-head attention of each candidate over [e_j ‖ emb(time gap)] of the events it retrieved.

    Attributes:
      heads: H.
      head_width: Dh.
      gap_width: width of the time gap's embedding, whose rows start from N(0, 0.02²).
      dtype: dtype of the products.
    """

    heads: int
    head_width: int
    gap_width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, q_BxMxQ: jax.Array, e_BxMxKxE: jax.Array, gap_BxMxK: jax.Array, mask_BxMxK: jax.Array
    ) -> jax.Array:
        """What each candidate gets, (B, M, H·Dh); `gap` holds the buckets of `time_gaps`."""
        table = small_table(self, "gap_table", (time_buckets.TABLE_ROWS, self.gap_width))
        x_BxMxKxC = jnp.concatenate([e_BxMxKxE, lookup(table, gap_BxMxK)], axis=-1).astype(self.dtype)
        query = TargetQuery(self.heads, self.head_width, x_BxMxKxC.shape[-1], name="query")
        score_BxMxHxK = target_scores(query(q_BxMxQ) * self.head_width**-0.5, x_BxMxKxC)
        pool = TargetPool(self.heads, self.head_width, self.dtype, name="pool")
        return pool(score_BxMxHxK, mask_BxMxK, x_BxMxKxC)


def query_macs(query_width: int, key_width: int, width: int) -> int:
    """Multiply-adds of `TargetQuery` for one candidate, `width` being H·Dh."""
    return (query_width + key_width) * width


def pool_macs(events: float, value_width: int, heads: int, width: int) -> float:
    """Multiply-adds of `TargetPool` for one candidate over so many events, `width` being H·Dh."""
    return events * heads * value_width + (value_width + width) * width
