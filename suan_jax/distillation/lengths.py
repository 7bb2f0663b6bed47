"""Models of other history lengths on one batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from suan_jax.batch import Batch


def latest_events(batch: Batch, max_len: int) -> Batch:
    """The batch with the latest `max_len` events of each row, as it is assembled for that length.

    Args:
      batch: L is at least `max_len`.
      max_len: L of the result.
    """
    if batch.history_mask.shape[1] == max_len:
        return batch
    length_B = jnp.sum(batch.history_mask, axis=1)
    kept_B = jnp.minimum(length_B, max_len)
    slots = jnp.arange(max_len)
    mask_BxL = slots < kept_B[:, None]
    index_BxL = jnp.where(mask_BxL, (length_B - kept_B)[:, None] + slots, 0)

    def taken(events: jax.Array) -> jax.Array:
        shape = (..., *(None,) * (events.ndim - 2))
        found = jnp.take_along_axis(events, index_BxL[shape], axis=1)
        return jnp.where(mask_BxL[shape], found, jnp.zeros((), events.dtype))  # as pads are

    return batch.replace(
        history={name: taken(ids) for name, ids in batch.history.items()},
        history_mask=mask_BxL,
        history_age=taken(batch.history_age),
        history_timed=taken(batch.history_timed),
        # Candidates see the oldest events of a row, which are those that go.
        visible=jnp.maximum(batch.visible - (length_B - kept_B)[:, None], 0).astype(batch.visible.dtype),
    )
