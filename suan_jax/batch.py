"""The one input that every model takes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from suan_jax.schema import GROUPS, PAD, Schema

HOURS_OF_WEEK = 168
UNKNOWN_HOUR = HOURS_OF_WEEK  # the row of an hour-of-week table that an event without a time reads
_WEEK = 7 * 24 * 3600

Array = jax.Array


@struct.dataclass
class Batch:
    """Histories with the candidates to be scored on them.

    B rows, L history slots, M candidates per row, V values of a multi-valued feature. Valid history
    events fill the first slots of a row in time order, the most recent last; pads follow.

    A row has one reference time, and every time is an age: int32 seconds before it. M = 1 is the plain
    one-impression example. With M > 1 a row holds either the candidates of one request (every `visible`
    is the row's history length, every `candidate_age` is 0), or one user's impressions across time, each
    seeing the first `visible` events of the row.

    Attributes:
      history: feature name to ids, (B, L) or (B, L, V) int32.
      history_mask: (B, L) bool, False at pads.
      history_age: (B, L) int32, seconds from the event to the row's reference time, never negative.
      history_timed: (B, L) bool, False where the event's time is unknown.
      candidate: feature name to ids, (B, M) or (B, M, V) int32.
      candidate_mask: (B, M) bool, False at pads.
      candidate_age: (B, M) int32, seconds from the impression to the row's reference time.
      visible: (B, M) int32, how many of the row's events the candidate may see (the oldest ones).
      profile: feature name to ids, (B,) or (B, V) int32.
      context: feature name to ids, (B, M) or (B, M, V) int32.
      dense: (B, M, number of dense features) float32.
      week_second: (B,) int32, the reference time in seconds since Monday 00:00 UTC.
      label: (B, M) float32, 1 for a click.
    """

    history: dict[str, Array]
    history_mask: Array
    history_age: Array
    history_timed: Array
    candidate: dict[str, Array]
    candidate_mask: Array
    candidate_age: Array
    visible: Array
    profile: dict[str, Array]
    context: dict[str, Array]
    dense: Array
    week_second: Array
    label: Array

    def group(self, name: str) -> dict[str, Array]:
        """The ids of one of `schema.GROUPS`."""
        return getattr(self, name)


def hour_of_week(batch: Batch, age: Array, timed: Array) -> Array:
    """Hour of the week, 0 to 167, of moments `age` (B, N) seconds before each row's reference time.

    Returns (B, N) int32; `UNKNOWN_HOUR` where `timed` (B, N) is False.
    """
    hour = jnp.mod(batch.week_second[:, None] - jnp.mod(age, _WEEK), _WEEK) // 3600
    return jnp.where(timed, hour, UNKNOWN_HOUR)


def without_ids(batch: Batch) -> Batch:
    """The batch with the times of its events alone, for models that kept the rest of the history."""
    return batch.replace(history={name: ids[:, :0] for name, ids in batch.history.items()})


def blank_batch(schema: Schema, rows: int, max_len: int, candidates: int = 1) -> Batch:
    """A batch of pads in NumPy: empty histories, masked candidates, all ids `PAD`.

    Args:
      schema: names and widths of the features.
      rows: B.
      max_len: L.
      candidates: M.
    """
    leading = {
        "history": (rows, max_len),
        "candidate": (rows, candidates),
        "profile": (rows,),
        "context": (rows, candidates),
    }
    ids = {
        group: {
            feature.name: np.full(
                leading[group] + ((feature.values,) if feature.values > 1 else ()), PAD, np.int32
            )
            for feature in schema.group(group)
        }
        for group in GROUPS
    }
    per_event, per_candidate = leading["history"], leading["candidate"]
    return Batch(
        **ids,
        history_mask=np.zeros(per_event, bool),
        history_age=np.zeros(per_event, np.int32),
        history_timed=np.zeros(per_event, bool),
        candidate_mask=np.zeros(per_candidate, bool),
        candidate_age=np.zeros(per_candidate, np.int32),
        visible=np.zeros(per_candidate, np.int32),
        dense=np.zeros((*per_candidate, len(schema.dense)), np.float32),
        week_second=np.zeros(rows, np.int32),
        label=np.zeros(per_candidate, np.float32),
    )
