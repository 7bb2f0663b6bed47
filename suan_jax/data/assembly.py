"""From blocks to batches: impressions with the latest events that they may see."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from suan_jax.batch import Batch
from suan_jax.data.block import Block

_DAY, _WEEK = 24 * 3600, 7 * 24 * 3600
_MONDAY = 3 * _DAY  # 1 January 1970 was a Thursday, three days after a Monday
_INT32_MAX = np.iinfo(np.int32).max


class EvaluationBatch(NamedTuple):
    """A batch, and what metrics need but a model must not see.

    Attributes:
      batch: what the model scores.
      user: (B,) int64, index of the user.
      truth: name to (B, M) float32, logits that a generator drew the labels from; empty for real logs.
    """

    batch: Batch
    user: np.ndarray
    truth: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Window:
    """Blocks joined into one, ready to be gathered from.

    Attributes:
      block: the blocks, one after another; its columns of events and of impressions have one more row, all
        zeros, that pads read, so that a pad can never show an event or another candidate.
      sequence: (I,) the sequence of each impression.
    """

    block: Block
    sequence: np.ndarray


_PER_SEQUENCE = ("user", "rank", "profile")


def join(blocks: Sequence[Block]) -> Window:
    """One window of several blocks, at least one."""

    def columns(name: str) -> list:
        return [getattr(block, name) for block in blocks]

    def merged(name: str) -> np.ndarray | dict[str, np.ndarray]:
        parts = columns(name)
        if isinstance(parts[0], dict):
            return {key: stacked([part[key] for part in parts], name) for key in parts[0]}
        return stacked(parts, name)

    def stacked(parts: list[np.ndarray], name: str) -> np.ndarray:
        if name not in _PER_SEQUENCE:
            parts = [*parts, np.zeros((1, *parts[0].shape[1:]), parts[0].dtype)]
        return np.concatenate(parts)

    def offsets(name: str) -> np.ndarray:
        return np.cumsum(np.concatenate([[0], *(np.diff(part) for part in columns(name))]))

    fields = {
        field.name: merged(field.name)
        for field in dataclasses.fields(Block)
        if not field.name.endswith("_offsets")
    }
    fields |= {name: offsets(name) for name in ("event_offsets", "impression_offsets")}
    block = Block(**fields)
    return Window(block, np.repeat(np.arange(len(block.user)), np.diff(block.impression_offsets)))


def assemble(window: Window, rows: np.ndarray, max_len: int) -> EvaluationBatch:
    """The examples of some impressions.

    A row holds the latest `max_len` events at most that its last candidate may see, and its reference time is
    that candidate's; each candidate sees those of the row's events that lie before it.

    Args:
      window: the blocks.
      rows: (B, M) indices of impressions: in a row those of one sequence, ascending, then -1 for pads.
      max_len: L.
    """
    block = window.block
    mask = rows >= 0
    last = rows[np.arange(len(rows)), mask.sum(axis=1) - 1]
    sequence, time = window.sequence[last], block.time[last]
    length = np.minimum(block.visible[last], max_len)
    skipped = block.visible[last] - length  # events of the sequence that are older than the row's
    slots = np.arange(max_len)
    history_mask = slots < length[:, None]
    pad = len(block.event_time) - 1
    first = block.event_offsets[sequence] + skipped
    index = np.where(history_mask, first[:, None] + slots, pad)
    timed = block.event_timed.take(index)
    visible = np.clip(block.visible[rows] - skipped[:, None], 0, length[:, None])
    candidate_age = time[:, None] - block.time[rows]
    batch = Batch(
        history={
            name: ids.take(index, axis=0).astype(np.int32, copy=False) for name, ids in block.event.items()
        },
        history_mask=history_mask,
        history_age=event_age(time[:, None], block.event_time.take(index), timed),
        history_timed=timed,
        candidate={name: ids[rows].astype(np.int32) for name, ids in block.candidate.items()},
        candidate_mask=mask,
        candidate_age=np.clip(candidate_age * mask, 0, _INT32_MAX).astype(np.int32),
        visible=visible.astype(np.int32),
        profile={name: ids[sequence].astype(np.int32) for name, ids in block.profile.items()},
        context={name: ids[rows].astype(np.int32) for name, ids in block.context.items()},
        dense=block.dense[rows].astype(np.float32),
        week_second=week_second(time),
        label=block.label[rows].astype(np.float32),
    )
    truth = {name: logits[rows].astype(np.float32) for name, logits in block.truth.items()}
    return EvaluationBatch(batch, block.user[sequence].astype(np.int64), truth)


def event_age(time: np.ndarray | int, event_time: np.ndarray, timed: np.ndarray) -> np.ndarray:
    """Seconds from events to a reference time, int32; 0 where an event's time is unknown.

    Args:
      time: the reference, seconds since 1970.
      event_time: likewise, int64, broadcastable to it.
      timed: bool, whether it is known.
    """
    age = time - event_time
    age *= timed
    return np.clip(age, 0, _INT32_MAX).astype(np.int32)


def week_second(time: np.ndarray) -> np.ndarray:
    """Seconds since Monday 00:00 UTC, int32, of moments in seconds since 1970."""
    return ((time + _MONDAY) % _WEEK).astype(np.int32)


def concatenate(parts: Sequence[EvaluationBatch], rows: int) -> EvaluationBatch:
    """Parts of a batch, at least one, and then zeros up to `rows`; padded candidates are masked out."""

    def join_leaves(*leaves: np.ndarray) -> np.ndarray:
        missing = rows - sum(len(leaf) for leaf in leaves)
        if missing:
            leaves = (*leaves, np.zeros((missing, *leaves[0].shape[1:]), leaves[0].dtype))
        return leaves[0] if len(leaves) == 1 else np.concatenate(leaves)

    return jax.tree.map(join_leaves, *parts)
