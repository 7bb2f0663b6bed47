"""Search among a row's events: which K of them each candidate retrieves, and reading those."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from suan_jax.batch import Batch
from suan_jax.layers import masking


class Retrieved(NamedTuple):
    """What each candidate retrieved.

    Attributes:
      index_BxMxK: int32 slots of the history, each at most once where `mask` is True.
      mask_BxMxK: bool, False where a candidate has fewer than K events to retrieve.
    """

    index_BxMxK: jax.Array
    mask_BxMxK: jax.Array


def top_k(score_BxMxL: jax.Array, mask_BxMxL: jax.Array, k: int) -> Retrieved:
    """Each candidate's K events of the highest scores, best first; of equal ones the most recent first.

    K = min(k, L). An event that `mask` excludes comes after every one that it allows, whatever the scores.
    No gradient passes.

    Args:
      score_BxMxL: scores; integers are exact up to 2^24.
      mask_BxMxL: True where a candidate may retrieve an event.
      k: how many to retrieve, at least 1.
    """
    length = score_BxMxL.shape[-1]
    score = jax.lax.stop_gradient(score_BxMxL).astype(jnp.float32)
    # An allowed event stays above the others even if its score has overflown.
    score = jnp.where(mask_BxMxL, jnp.maximum(score, jnp.finfo(jnp.float32).min), -jnp.inf)
    # Of equal values `lax.top_k` takes the first: the most recent, once the order is turned round.
    index = length - 1 - jax.lax.top_k(score[..., ::-1], min(k, length))[1]
    return Retrieved(index, jnp.take_along_axis(mask_BxMxL, index, axis=-1, mode="clip"))


def most_recent(mask_BxMxL: jax.Array, k: int) -> Retrieved:
    """Each candidate's K most recent events among those that `mask` allows, the latest first."""
    slots = jnp.arange(mask_BxMxL.shape[-1])
    return top_k(jnp.broadcast_to(slots, mask_BxMxL.shape), mask_BxMxL, k)


def last_events(batch: Batch, k: int) -> Retrieved:
    """The same among all events that each candidate sees: their slots are known without a search."""
    k = min(k, batch.history_mask.shape[1])
    index = batch.visible[:, :, None] - 1 - jnp.arange(k, dtype=jnp.int32)
    mask = masking.candidate_visibility(batch)
    mask = jnp.take_along_axis(mask, jnp.maximum(index, 0), axis=-1, mode="clip") & (index >= 0)
    return Retrieved(jnp.maximum(index, 0), mask)


def gather_events(x_BxLxE: jax.Array, index_BxMxK: jax.Array) -> jax.Array:
    """Reads (B, L, E) at each candidate's slots: (B, M, K, E)."""
    return jax.vmap(lambda x_LxE, index: jnp.take(x_LxE, index, axis=0, mode="clip"))(x_BxLxE, index_BxMxK)
