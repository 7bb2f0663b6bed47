"""The token sequence of a batch: T = L + M slots, history first, then the candidates.

Every function here gives one property of those slots. A history slot's order is its index, for valid events
fill a row's first slots in time order; a candidate's order is the number of events it sees. Positions counted
back from a candidate are differences of orders.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from suan_jax.batch import Batch


def seen_length(batch: Batch) -> jax.Array:
    """How many events of each row any of its candidates sees, (B,) int32."""
    return jnp.max(jnp.where(batch.candidate_mask, batch.visible, 0), axis=1)


def seen_events(batch: Batch) -> jax.Array:
    """(B, L) bool, True at the events that any of the row's candidates sees."""
    slots = jnp.arange(batch.history_mask.shape[1])
    return batch.history_mask & (slots < seen_length(batch)[:, None])


def token_order(batch: Batch) -> jax.Array:
    """Each token's order, (B, T) int32; larger is more recent."""
    slots = jnp.arange(batch.history_mask.shape[1], dtype=jnp.int32)
    history = jnp.broadcast_to(slots, batch.history_mask.shape)
    return jnp.concatenate([history, batch.visible], axis=1)


def token_age(batch: Batch) -> jax.Array:
    """Each token's age, (B, T) int32 seconds before the row's reference time."""
    return jnp.concatenate([batch.history_age, batch.candidate_age], axis=1)


def token_timed(batch: Batch) -> jax.Array:
    """(B, T) bool, False where the token's time is unknown; a candidate's never is."""
    return jnp.concatenate([batch.history_timed, jnp.ones_like(batch.candidate_mask)], axis=1)


def request_age(batch: Batch) -> jax.Array:
    """The age of each row's latest candidate, (B, 1) int32: of one request's candidates, the age of all."""
    latest = jnp.iinfo(jnp.int32).max
    return jnp.min(jnp.where(batch.candidate_mask, batch.candidate_age, latest), axis=1, keepdims=True)


def candidate_visibility(batch: Batch) -> jax.Array:
    """(B, M, L) bool, True where candidate m sees event l; a pad sees nothing and is not seen."""
    slots = jnp.arange(batch.history_mask.shape[1])
    early = slots < batch.visible[:, :, None]
    return early & batch.history_mask[:, None, :] & batch.candidate_mask[:, :, None]


def visibility(batch: Batch) -> jax.Array:
    """(B, T, T) bool, [b, i, j] True where token i sees token j.

    An event sees itself and the events before it; a candidate sees the first `visible` events and itself,
    never another candidate; pads see nothing and are seen by nobody.
    """
    length, candidates = batch.history_mask.shape[1], batch.candidate_mask.shape[1]
    mask = batch.history_mask
    causal = jnp.tril(jnp.ones((length, length), bool))
    events = causal & mask[:, :, None] & mask[:, None, :]
    events = jnp.pad(events, ((0, 0), (0, 0), (0, candidates)))
    own = jnp.eye(candidates, dtype=bool) & batch.candidate_mask[:, :, None]
    return jnp.concatenate([events, jnp.concatenate([candidate_visibility(batch), own], axis=2)], axis=1)
