"""Self-attention with relative biases as one kernel, for the models that have it beside a plain form."""

from __future__ import annotations

import functools
import logging

import jax
import jax.numpy as jnp
from flax import struct

from suan_jax import kernels
from suan_jax.batch import Batch
from suan_jax.errors import UserError
from suan_jax.layers import masking, time_buckets
from suan_jax.notice import notice

CHOICES = ("auto", "plain", "fused")
_EDGES = tuple(int(edge) for edge in time_buckets.DEVICE_EDGES)

Tables = tuple[jax.Array | None, jax.Array | None]
"""The weights of a position bias and of a time bias."""


@struct.dataclass
class Relation:
    """Which token of a batch sees which, and when each was.

    Attributes:
      history: L, the first slots.
      window: k of LightSUAN's attention, 0 for full attention.
      dilation: r of it, likewise.
      tokens: the rest.
    """

    history: int = struct.field(pytree_node=False)
    window: int = struct.field(pytree_node=False)
    dilation: int = struct.field(pytree_node=False)
    tokens: kernels.Tokens


def check_choice(choice: str) -> None:
    """Raises `UserError` unless `config.model.attention` is one of `CHOICES`."""
    if choice not in CHOICES:
        raise UserError(f"config.model.attention is {choice!r}, expected one of {', '.join(CHOICES)}")


def fuses(choice: str, head_dim: int, dtype: jnp.dtype) -> bool:
    """Whether the kernel is to be used; if it was wanted and cannot run, the reason is said, once.

    Args:
      choice: "plain", "fused", or "auto" for the kernel in bfloat16 alone: it is made for tensor cores.
      head_dim: Dh.
      dtype: of queries, keys and values.
    """
    if choice == "plain":
        return False
    reason = kernels.refusal(head_dim, dtype)
    if not reason and jax.device_count() > 1:
        reason = f"the arrays are spread over {jax.device_count()} devices, and the kernel runs on one"
    if not reason and choice == "auto" and jnp.dtype(dtype) != jnp.dtype(jnp.bfloat16):
        reason = f"config.model.dtype is {jnp.dtype(dtype).name}, and the kernel is made for bfloat16"
    if reason:
        _say_once(choice == "fused", f"Attention is computed in its plain form: {reason}.")
    return not reason


@functools.cache
def _say_once(aloud: bool, sentence: str) -> None:
    if aloud:
        notice(sentence)
    else:
        logging.getLogger(__name__).info(sentence)


def relation(
    batch: Batch,
    query_time: tuple[jax.Array, jax.Array] | None = None,
    window: int = 0,
    dilation: int = 0,
) -> Relation:
    """What `masking.visibility`, orders and times say, in three integers a token.

    Args:
      batch: its histories and candidates.
      query_time: the ages, (B, T) int32, that tokens have as queries, and (B, T) bool, False where unknown;
        None for the tokens' own.
      window: k of sparse attention, see `sparse_pattern`; 0 for full attention.
      dilation: r of it, likewise.
    """
    length = batch.history_mask.shape[1]
    slots = jnp.arange(1, length + 1, dtype=jnp.int32)
    seen = [jnp.where(batch.history_mask, slots, -1), jnp.where(batch.candidate_mask, batch.visible, -1)]
    own = masking.token_age(batch), masking.token_timed(batch)
    times = [jnp.where(timed, age, -1) for age, timed in (query_time or own, own)]
    return Relation(length, window, dilation, kernels.Tokens(jnp.concatenate(seen, axis=1), *times))


def fused_softmax(
    q_BxTxHxDh: jax.Array, k_BxTxHxDh: jax.Array, v_BxTxHxDh: jax.Array, tables: Tables, of: Relation
) -> jax.Array:
    """`attention.attention` with SUAN's biases, of their tables and a relation instead of arrays of pairs."""
    return kernels.fused_attention(
        q_BxTxHxDh,
        k_BxTxHxDh,
        v_BxTxHxDh,
        of.tokens,
        *tables,
        kind="softmax",
        history=of.history,
        scale=q_BxTxHxDh.shape[-1] ** -0.5,
        edges=_EDGES,
        window=of.window,
        dilation=of.dilation,
    )


def fused_silu(
    q_BxTxHxDh: jax.Array,
    k_BxTxHxDh: jax.Array,
    v_BxTxHxDh: jax.Array,
    tables: Tables,
    of: Relation,
    divisor: int,
) -> jax.Array:
    """Σ_j silu(q kᵀ + rab) / divisor · v, HSTU's attention, likewise."""
    return kernels.fused_attention(
        q_BxTxHxDh,
        k_BxTxHxDh,
        v_BxTxHxDh,
        of.tokens,
        *tables,
        kind="silu",
        history=of.history,
        scale=1.0,
        divisor=divisor,
        edges=_EDGES,
    )
