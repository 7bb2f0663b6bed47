"""Softmax attention, and the projections around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

MASKED = -1e30  # finite, so that a row of masked scores alone has no NaN, forward or backward


def attention(
    q_BxTxHxDh: jax.Array,
    k_BxSxHxDh: jax.Array,
    v_BxSxHxDh: jax.Array,
    bias_BxTxS: jax.Array | None,
    mask_BxTxS: jax.Array,
) -> jax.Array:
    """softmax(q kᵀ / sqrt(Dh) + bias) v, the softmax in float32 over the keys that `mask` allows.

    Args:
      q_BxTxHxDh: queries.
      k_BxSxHxDh: keys.
      v_BxSxHxDh: values.
      bias_BxTxS: added to the scores of every head, or None.
      mask_BxTxS: True where a query sees a key; the T axis may be 1.

    Returns:
      (B, T, H, Dh) in the dtype of `v`; exactly zero for a query that sees no key.
    """
    scale = q_BxTxHxDh.shape[-1] ** -0.5
    score_BxHxTxS = jnp.einsum(
        "bthd,bshd->bhts", q_BxTxHxDh * scale, k_BxSxHxDh, preferred_element_type=jnp.float32
    )
    if bias_BxTxS is not None:
        score_BxHxTxS = score_BxHxTxS + bias_BxTxS[:, None].astype(jnp.float32)
    weight_BxHxTxS = jax.nn.softmax(jnp.where(mask_BxTxS[:, None], score_BxHxTxS, MASKED), axis=-1)
    out_BxTxHxDh = jnp.einsum("bhts,bshd->bthd", weight_BxHxTxS.astype(v_BxSxHxDh.dtype), v_BxSxHxDh)
    return jnp.where(mask_BxTxS.any(-1)[:, :, None, None], out_BxTxHxDh, 0)


Attend = Callable[[jax.Array, jax.Array, jax.Array, Any, Any], jax.Array]
"""`attention`, or what stands in for it: of q, k, v, and of a bias and a mask in whatever form it takes."""


def kernel_into_heads(module: nn.Module, name: str, width: int, heads: int, head_width: int) -> jax.Array:
    """The kernel of a projection to H heads, (`width`, H, Dh) float32; for the compact method of a module."""
    init = nn.initializers.lecun_normal(in_axis=0, out_axis=(1, 2))
    init = nn.with_logical_partitioning(init, ("embed", "heads", "kv"))
    return module.param(name, init, (width, heads, head_width), jnp.float32)


def kernel_from_heads(module: nn.Module, name: str, heads: int, width: int) -> jax.Array:
    """The kernel of the projection of H heads side by side, (H, `width` / H, `width`) float32; likewise."""
    init = nn.initializers.lecun_normal(in_axis=(0, 1), out_axis=2)
    init = nn.with_logical_partitioning(init, ("heads", "kv", "embed"))
    return module.param(name, init, (heads, width // heads, width), jnp.float32)


def project_heads(module: nn.Module, name: str, x_BxTxHxDh: jax.Array) -> jax.Array:
    """The heads side by side through a kernel of that name, (B, T, H·Dh); likewise."""
    heads, head_width = x_BxTxHxDh.shape[-2:]
    kernel = kernel_from_heads(module, name, heads, heads * head_width)
    return jnp.einsum("bthd,hdc->btc", x_BxTxHxDh, kernel.astype(x_BxTxHxDh.dtype))


class MultiHeadAttention(nn.Module):
    """Projections around an attention, all without bias: D to H heads and back.

    Attributes:
      heads: H; divides D.
      dtype: dtype of the products.
      attend: the attention.
    """

    heads: int
    dtype: jnp.dtype = jnp.float32
    attend: Attend = attention

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, y_BxSxC: jax.Array, bias: Any, mask: Any) -> jax.Array:
        """Queries from `x`, keys and values from `y`, `bias` and `mask` to `attend`; returns (B, T, D)."""
        width = x_BxTxD.shape[-1]

        def heads(name: str, z: jax.Array) -> jax.Array:
            kernel = kernel_into_heads(self, name, z.shape[-1], self.heads, width // self.heads)
            return jnp.einsum("btc,chd->bthd", z.astype(self.dtype), kernel.astype(self.dtype))

        q, k, v = heads("query", x_BxTxD), heads("key", y_BxSxC), heads("value", y_BxSxC)
        return project_heads(self, "out", self.attend(q, k, v, bias, mask))
