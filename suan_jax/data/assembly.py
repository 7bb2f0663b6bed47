"""From blocks to batches: each impression with the latest events that it may see."""

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
      block: the blocks, one after another; its event columns have one more row, all zeros, that the pads of
        a history read, so that a pad can never show an event.
      sequence: (I,) the sequence of each impression.
    """

    block: Block
    sequence: np.ndarray


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
        if name in ("event", "event_time", "event_timed"):
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
    """The examples of some impressions, M = 1, each seeing its last `max_len` events at most.

    Args:
      window: the blocks.
      rows: (B,) indices of impressions.
      max_len: L.
    """
    block, sequence = window.block, window.sequence[rows]
    visible = block.visible[rows]
    length = np.minimum(visible, max_len)
    start = block.event_offsets[sequence] + visible - length
    slots = np.arange(max_len)
    mask = slots < length[:, None]
    pad = len(block.event_time) - 1
    index = np.where(mask, start[:, None] + slots, pad)
    time = block.time[rows]
    timed = block.event_timed.take(index)
    age = time[:, None] - block.event_time.take(index)
    age *= timed
    ones = np.ones((len(rows), 1), bool)
    batch = Batch(
        history={
            name: ids.take(index, axis=0).astype(np.int32, copy=False) for name, ids in block.event.items()
        },
        history_mask=mask,
        history_age=np.clip(age, 0, _INT32_MAX).astype(np.int32),
        history_timed=timed,
        candidate={name: ids[rows, None].astype(np.int32) for name, ids in block.candidate.items()},
        candidate_mask=ones,
        candidate_age=np.zeros(ones.shape, np.int32),
        visible=length[:, None].astype(np.int32),
        profile={name: ids[sequence].astype(np.int32) for name, ids in block.profile.items()},
        context={name: ids[rows, None].astype(np.int32) for name, ids in block.context.items()},
        dense=block.dense[rows, None].astype(np.float32),
        week_second=((time + _MONDAY) % _WEEK).astype(np.int32),
        label=block.label[rows, None].astype(np.float32),
    )
    truth = {name: logits[rows, None].astype(np.float32) for name, logits in block.truth.items()}
    return EvaluationBatch(batch, block.user[sequence].astype(np.int64), truth)


def concatenate(parts: Sequence[EvaluationBatch], rows: int) -> EvaluationBatch:
    """Parts of a batch, at least one, and then zeros up to `rows`; padded candidates are masked out."""

    def join_leaves(*leaves: np.ndarray) -> np.ndarray:
        missing = rows - sum(len(leaf) for leaf in leaves)
        if missing:
            leaves = (*leaves, np.zeros((missing, *leaves[0].shape[1:]), leaves[0].dtype))
        return leaves[0] if len(leaves) == 1 else np.concatenate(leaves)

    return jax.tree.map(join_leaves, *parts)
