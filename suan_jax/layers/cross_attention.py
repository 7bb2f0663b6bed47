"""Softmax attention of many tokens to a few keys of another kind."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from suan_jax.layers.attention import MASKED, kernel_from_heads, kernel_into_heads


class CrossAttention(nn.Module):
    """softmax(q kᵀ / sqrt(Dh)) v with projections around it, all without bias: D to H heads and back.

    As the keys are few, a row's are multiplied by the query's projection and its values by the output's, once
    for all of its tokens: q kᵀ = x (Wq kᵀ) and (p v) Wo = p (v Wo). So no token is projected, and each takes
    2·H·P·D multiply-adds in place of 2·D² + 2·P·D.

    Attributes:
      heads: H; divides D.
      dtype: dtype of the products.
    """

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, y_BxPxC: jax.Array, mask_BxP: jax.Array) -> jax.Array:
        """Queries from `x`, keys and values from `y` where `mask` allows; (B, T, D), zero if nowhere."""
        width, key_width = x_BxTxD.shape[-1], y_BxPxC.shape[-1]
        head_width = width // self.heads

        def into_heads(name: str, features: int) -> jax.Array:
            return kernel_into_heads(self, name, features, self.heads, head_width).astype(self.dtype)

        query_DxHxK = into_heads("query", width) * head_width**-0.5
        key_CxHxK, value_CxHxK = into_heads("key", key_width), into_heads("value", key_width)
        out_HxKxD = kernel_from_heads(self, "out", self.heads, width).astype(self.dtype)
        y_BxPxC = y_BxPxC.astype(self.dtype)
        k_BxPxHxK = jnp.einsum("bpc,chk->bphk", y_BxPxC, key_CxHxK)
        v_BxPxHxK = jnp.einsum("bpc,chk->bphk", y_BxPxC, value_CxHxK)
        key_BxDxHxP = jnp.einsum("dhk,bphk->bdhp", query_DxHxK, k_BxPxHxK)
        value_BxHxPxD = jnp.einsum("bphk,hkd->bhpd", v_BxPxHxK, out_HxKxD)
        score_BxTxHxP = jnp.einsum(
            "btd,bdhp->bthp", x_BxTxD.astype(self.dtype), key_BxDxHxP, preferred_element_type=jnp.float32
        )
        score_BxTxHxP = jnp.where(mask_BxP[:, None, None], score_BxTxHxP, MASKED)
        weight_BxTxHxP = jax.nn.softmax(score_BxTxHxP, axis=-1).astype(self.dtype)
        out_BxTxD = jnp.einsum("bthp,bhpd->btd", weight_BxTxHxP, value_BxHxPxD)
        return jnp.where(mask_BxP.any(-1)[:, None, None], out_BxTxD, 0)


def cross_attention_macs(
    tokens: np.ndarray | int, keys: int, width: int, key_width: int, heads: int
) -> np.ndarray | int:
    """Multiply-adds of `CrossAttention` for a row of so many tokens.

    Args:
      tokens: T.
      keys: P.
      width: D.
      key_width: C.
      heads: H.
    """
    return 2 * keys * key_width * width + 2 * keys * width**2 + 2 * tokens * heads * keys * width
