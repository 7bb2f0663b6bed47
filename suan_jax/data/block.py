"""A block: the unit in which a log is stored, generated and read."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from suan_jax.schema import Schema


@dataclasses.dataclass(frozen=True)
class Block:
    """Some sequences, each with all of its events and its impressions, both in time order.

    A sequence is a user, or, where a source hands out histories with each row, that row. S sequences,
    E events, I impressions, V values of a multi-valued feature. The events of sequence s lie at
    `event_offsets[s]:event_offsets[s + 1]`, its impressions likewise.

    Attributes:
      user: (S,) int64 index of the sequence's user.
      rank: (S,) float64 in [0, 1), a hash of the user, ascending over the whole log, so that the users of
        a train fraction f are those with rank < f and lie in the first blocks.
      event_offsets: (S + 1,) int64.
      impression_offsets: (S + 1,) int64.
      profile: feature name to ids, (S,) or (S, V).
      event: feature name to ids, (E,) or (E, V).
      event_time: (E,) int64 seconds since 1970; 0 where unknown.
      event_timed: (E,) bool, False where the time is unknown.
      candidate: feature name to ids, (I,) or (I, V).
      context: feature name to ids, (I,) or (I, V).
      dense: (I, number of dense features) float32.
      time: (I,) int64 seconds since 1970.
      label: (I,) uint8, 0 or 1.
      split: (I,) uint8, an index into `schema.SPLITS`.
      visible: (I,) int64, how many of the sequence's events lie strictly before the impression.
      truth: name to (I,) float32 logits that a generator drew the labels from; empty for real logs, and
        never shown to a model.
    """

    user: np.ndarray
    rank: np.ndarray
    event_offsets: np.ndarray
    impression_offsets: np.ndarray
    profile: dict[str, np.ndarray]
    event: dict[str, np.ndarray]
    event_time: np.ndarray
    event_timed: np.ndarray
    candidate: dict[str, np.ndarray]
    context: dict[str, np.ndarray]
    dense: np.ndarray
    time: np.ndarray
    label: np.ndarray
    split: np.ndarray
    visible: np.ndarray
    truth: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


class Log(Protocol):
    """Anything that hands out blocks by index: a store on disk, or a generator."""

    schema: Schema
    num_blocks: int
    fingerprint: str  # of its contents: another log, or the same one prepared anew, has another

    def counts(self, split: str) -> np.ndarray:
        """Impressions of a split in each block, (num_blocks,) int64."""
        ...

    def block(self, index: int) -> Block:
        """The block at `index`; the same every time."""
        ...
