"""What the kernels compute, with every array of pairs written out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from suan_jax.kernels.attention import Tokens

_MASKED = -1e30


def sees(tokens: Tokens, history: int, window: int = 0, dilation: int = 0) -> jax.Array:
    """(B, T, T) bool, [b, i, j] True where token i sees token j; arguments as in `fused_attention`."""
    seen, slot = tokens.seen_BxT, jnp.arange(tokens.seen_BxT.shape[1])
    visible = (slot < seen[:, :, None]) | jnp.eye(slot.size, dtype=bool)
    visible &= (seen >= 0)[:, :, None] & (seen >= 0)[:, None, :]
    if window:
        order = _order(tokens, history)
        back = order[:, :, None] - order[:, None, :]
        visible &= (back < window) | ((back - (window - 1)) % dilation == 0)
    return visible


def _order(tokens: Tokens, history: int) -> jax.Array:
    slot = jnp.arange(tokens.seen_BxT.shape[1])
    return jnp.where(slot < history, slot, tokens.seen_BxT)


def plain_attention(
    q_BxTxHxDh: jax.Array,
    k_BxTxHxDh: jax.Array,
    v_BxTxHxDh: jax.Array,
    tokens: Tokens,
    position_table: jax.Array | None,
    time_table: jax.Array | None,
    *,
    kind: str,
    history: int,
    scale: float,
    divisor: float = 1.0,
    edges: tuple[int, ...] = (),
    window: int = 0,
    dilation: int = 0,
) -> jax.Array:
    """See `fused_attention`; every product in the dtype of the arrays, for small shapes."""
    score = jnp.einsum("bthd,bshd->bhts", q_BxTxHxDh, k_BxTxHxDh) * scale
    if position_table is not None:
        order = _order(tokens, history)
        middle = (position_table.shape[0] - 1) // 2
        index = jnp.clip(order[:, None, :] - order[:, :, None] + middle, 0, 2 * middle)
        score = score + position_table[index][:, None]
    if time_table is not None:
        query, key = tokens.query_time_BxT[:, :, None], tokens.key_time_BxT[:, None, :]
        starts = jnp.asarray(np.asarray(edges)[1:], jnp.int32)
        bucket = jnp.searchsorted(starts, jnp.abs(query - key), side="right")
        bucket = jnp.where((query >= 0) & (key >= 0), bucket, time_table.shape[0] - 1)
        score = score + time_table[bucket][:, None]
    visible = sees(tokens, history, window, dilation)[:, None]
    if kind == "softmax":
        weight = jax.nn.softmax(jnp.where(visible, score, _MASKED), axis=-1)
    else:
        weight = jax.nn.silu(score) / divisor
    return jnp.einsum("bhts,bshd->bthd", jnp.where(visible, weight, 0), v_BxTxHxDh)
