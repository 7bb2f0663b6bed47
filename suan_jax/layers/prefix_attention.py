"""Attention over a shared prefix: a sequence that sees itself, and groups that see it and themselves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from suan_jax.layers.attention import MASKED, attention


def prefix_attention(
    q_BxTxHxDh: jax.Array, k_BxTxHxDh: jax.Array, v_BxTxHxDh: jax.Array, valid_BxS: jax.Array, group: int
) -> jax.Array:
    """softmax(q kᵀ / sqrt(Dh)) v of S sequence tokens followed by groups of `group` tokens each.

    A sequence token sees the valid sequence tokens; a token of a group sees those and its own group, never
    another one. Keys and values of the sequence serve every group, and no score between groups is computed.

    Args:
      q_BxTxHxDh: queries, T = S + a multiple of `group`; S, or what follows it, may be nothing.
      k_BxTxHxDh: keys.
      v_BxTxHxDh: values.
      valid_BxS: which of the first S tokens are seen.
      group: tokens of a group.

    Returns:
      (B, T, H, Dh) in the dtype of `v`; zero for a sequence token of a row without a valid one.
    """
    length = valid_BxS.shape[1]
    k_BxSxHxDh, v_BxSxHxDh = k_BxTxHxDh[:, :length], v_BxTxHxDh[:, :length]
    parts = []
    if length:
        parts.append(attention(q_BxTxHxDh[:, :length], k_BxSxHxDh, v_BxSxHxDh, None, valid_BxS[:, None]))
    if q_BxTxHxDh.shape[1] > length:

        def grouped(x_BxTxHxDh: jax.Array) -> jax.Array:
            own = x_BxTxHxDh[:, length:]
            return own.reshape(own.shape[0], -1, group, *own.shape[2:])

        q_BxMxGxHxDh, k_BxMxGxHxDh, v_BxMxGxHxDh = map(grouped, (q_BxTxHxDh, k_BxTxHxDh, v_BxTxHxDh))
        q_BxMxGxHxDh = q_BxMxGxHxDh * q_BxMxGxHxDh.shape[-1] ** -0.5

        def scores(formula: str, keys: jax.Array) -> jax.Array:
            return jnp.einsum(formula, q_BxMxGxHxDh, keys, preferred_element_type=jnp.float32)

        prefix = jnp.where(valid_BxS[:, None, None, None], scores("bmghd,bshd->bmhgs", k_BxSxHxDh), MASKED)
        own = scores("bmghd,bmnhd->bmhgn", k_BxMxGxHxDh)
        weight = jax.nn.softmax(jnp.concatenate([prefix, own], axis=-1)).astype(v_BxTxHxDh.dtype)
        out = jnp.einsum("bmhgs,bshd->bmghd", weight[..., :length], v_BxSxHxDh)
        out += jnp.einsum("bmhgn,bmnhd->bmghd", weight[..., length:], v_BxMxGxHxDh)
        parts.append(out.reshape(out.shape[0], -1, *out.shape[3:]))
    return jnp.concatenate(parts, axis=1)


def prefix_pairs(sequence: np.ndarray | int, groups: int, group: int) -> np.ndarray | int:
    """Pairs of tokens that `prefix_attention` scores in a row; each costs 2·D multiply-adds."""
    return sequence**2 + groups * group * (sequence + group)
