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
        groups = [x[:, length:] for x in (q_BxTxHxDh, k_BxTxHxDh, v_BxTxHxDh)]
        parts.append(group_attention(*groups, k_BxSxHxDh, v_BxSxHxDh, valid_BxS, group))
    return jnp.concatenate(parts, axis=1)


def group_attention(
    q_BxMGxHxDh: jax.Array,
    k_BxMGxHxDh: jax.Array,
    v_BxMGxHxDh: jax.Array,
    k_BxSxHxDh: jax.Array,
    v_BxSxHxDh: jax.Array,
    valid_BxS: jax.Array,
    group: int,
) -> jax.Array:
    """What the groups read in `prefix_attention`, given the sequence's keys and values.

    Args:
      q_BxMGxHxDh: queries of M groups of `group` tokens each.
      k_BxMGxHxDh: their own keys.
      v_BxMGxHxDh: their own values.
      k_BxSxHxDh: keys of the sequence.
      v_BxSxHxDh: values of the sequence.
      valid_BxS: which tokens of the sequence are seen.
      group: tokens of a group.

    Returns:
      (B, M·G, H, Dh) in the dtype of `v`.
    """
    length = valid_BxS.shape[1]

    def grouped(x_BxMGxHxDh: jax.Array) -> jax.Array:
        return x_BxMGxHxDh.reshape(x_BxMGxHxDh.shape[0], -1, group, *x_BxMGxHxDh.shape[2:])

    q_BxMxGxHxDh, k_BxMxGxHxDh, v_BxMxGxHxDh = map(grouped, (q_BxMGxHxDh, k_BxMGxHxDh, v_BxMGxHxDh))
    q_BxMxGxHxDh = q_BxMxGxHxDh * q_BxMxGxHxDh.shape[-1] ** -0.5

    def scores(formula: str, keys: jax.Array) -> jax.Array:
        return jnp.einsum(formula, q_BxMxGxHxDh, keys, preferred_element_type=jnp.float32)

    prefix = jnp.where(valid_BxS[:, None, None, None], scores("bmghd,bshd->bmhgs", k_BxSxHxDh), MASKED)
    own = scores("bmghd,bmnhd->bmhgn", k_BxMxGxHxDh)
    weight = jax.nn.softmax(jnp.concatenate([prefix, own], axis=-1)).astype(v_BxMGxHxDh.dtype)
    out = jnp.einsum("bmhgs,bshd->bmghd", weight[..., :length], v_BxSxHxDh)
    out += jnp.einsum("bmhgn,bmnhd->bmghd", weight[..., length:], v_BxMxGxHxDh)
    return out.reshape(q_BxMGxHxDh.shape)


def prefix_pairs(sequence: np.ndarray | int, groups: int, group: int) -> np.ndarray | int:
    """Pairs of tokens that `prefix_attention` scores in a row; each costs 2·D multiply-adds."""
    return sequence**2 + groups * group * (sequence + group)
