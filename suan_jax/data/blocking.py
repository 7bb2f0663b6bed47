"""From the sorted rows of some users to blocks of ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from suan_jax.data.block import Block
from suan_jax.data.raw_log import LABEL, TIME
from suan_jax.data.vocabulary import Encoder, encode_column
from suan_jax.schema import Feature, Schema

# Columns that preparation adds to the raw ones.
INDEX = "_index"  # the user's position in rank order, or the sequence's, where they differ
OWNER = "_owner"  # the user of a sequence
RANK = "_rank"
SPLIT = "_split"

IMPRESSIONS_PER_BLOCK = 4096
EVENTS_PER_BLOCK = 131072
_BEFORE_ALL = np.iinfo(np.int64).min  # sorts an event of unknown time before every known one


@dataclasses.dataclass(frozen=True)
class Scale:
    """How a dense column is standardised: (value - mean) / deviation, and 0 where missing.

    Attributes:
      mean: mean in the train period, after `log1p`.
      deviation: standard deviation in the train period; 1 for a constant column.
      log1p: whether values become sign(x) log(1 + |x|) first.
    """

    mean: float
    deviation: float
    log1p: bool

    def apply(self, values: pl.Series) -> np.ndarray:
        """(n,) float32."""
        raw = values.cast(pl.Float64).to_numpy()  # NaN where null
        return np.nan_to_num((squash(raw, self.log1p) - self.mean) / self.deviation).astype(np.float32)


def squash(values: np.ndarray, log1p: bool) -> np.ndarray:
    """sign(x) log(1 + |x|) if `log1p`, else the values as they are."""
    return np.sign(values) * np.log1p(np.abs(values)) if log1p else values


def count_visible(
    impression_user: np.ndarray, impression_time: np.ndarray, event_user: np.ndarray, event_time: np.ndarray
) -> np.ndarray:
    """How many of its user's events lie strictly before each impression, (I,) int64.

    Users are indices that ascend on both sides, times ascend within a user. An event at an impression's
    very second is not before it.
    """
    users = np.concatenate([impression_user, event_user])
    times = np.concatenate([impression_time, event_time])
    is_event = np.arange(len(users)) >= len(impression_user)
    order = np.lexsort((is_event, times, users))  # at equal times the impression comes first
    before = np.empty(len(users), np.int64)
    before[order] = np.cumsum(is_event[order])
    return before[: len(impression_user)] - np.searchsorted(event_user, impression_user)


def _encode(
    frame: pl.DataFrame, features: tuple[Feature, ...], encoders: Mapping[str, Encoder]
) -> dict[str, np.ndarray]:
    return {f.name: encode_column(encoders[f.table], frame[f.name], f.values) for f in features}


def partition_block(
    sequences: pl.DataFrame,
    impressions: pl.DataFrame,
    events: pl.DataFrame,
    schema: Schema,
    encoders: Mapping[str, Encoder],
    scales: Mapping[str, Scale],
) -> Block:
    """All rows of consecutive users as one block.

    Args:
      sequences: `_index`, `_owner`, `_rank` and profile columns, sorted by `_index`, without gaps.
      impressions: sorted by (`_index`, `_time`, `_order`), at least one of each sequence.
      events: sorted likewise, with unknown times, null, first; of these sequences only.
      schema: the log's schema.
      encoders: table name to its encoder.
      scales: dense column to its scale.
    """
    index = sequences[INDEX].to_numpy()
    bounds = np.append(index, index[-1] + 1)
    impression_user, event_user = impressions[INDEX].to_numpy(), events[INDEX].to_numpy()
    timed = events[TIME].is_not_null().to_numpy()
    time, event_time = impressions[TIME].to_numpy(), events[TIME].fill_null(0).to_numpy()
    dense = [scales[name].apply(impressions[name]) for name in schema.dense]
    return Block(
        user=sequences[OWNER].to_numpy().astype(np.int64),
        rank=sequences[RANK].to_numpy(),
        event_offsets=np.searchsorted(event_user, bounds).astype(np.int64),
        impression_offsets=np.searchsorted(impression_user, bounds).astype(np.int64),
        profile=_encode(sequences, schema.profile, encoders),
        event=_encode(events, schema.history, encoders),
        event_time=event_time,
        event_timed=timed,
        candidate=_encode(impressions, schema.candidate, encoders),
        context=_encode(impressions, schema.context, encoders),
        dense=np.stack(dense, axis=1) if dense else np.zeros((len(time), 0), np.float32),
        time=time,
        label=impressions[LABEL].to_numpy().astype(np.uint8),
        split=impressions[SPLIT].to_numpy().astype(np.uint8),
        visible=count_visible(impression_user, time, event_user, np.where(timed, event_time, _BEFORE_ALL)),
    )


def cut(
    block: Block,
    max_impressions: int = IMPRESSIONS_PER_BLOCK,
    max_events: int = EVENTS_PER_BLOCK,
) -> Iterator[Block]:
    """Cuts a block, between sequences, into blocks of at most these sizes; a larger one stays whole."""
    start, sequences = 0, len(block.user)
    while start < sequences:
        ends = [
            np.searchsorted(offsets, offsets[start] + limit, side="right") - 1
            for offsets, limit in (
                (block.impression_offsets, max_impressions),
                (block.event_offsets, max_events),
            )
        ]
        end = min(max(start + 1, min(ends)), sequences)
        yield _slice(block, start, end)
        start = end


def _slice(block: Block, start: int, end: int) -> Block:
    sequences = slice(start, end)
    events = slice(*block.event_offsets[[start, end]])
    impressions = slice(*block.impression_offsets[[start, end]])

    def take(columns: dict[str, np.ndarray], rows: slice) -> dict[str, np.ndarray]:
        return {name: column[rows] for name, column in columns.items()}

    return Block(
        user=block.user[sequences],
        rank=block.rank[sequences],
        event_offsets=block.event_offsets[start : end + 1] - events.start,
        impression_offsets=block.impression_offsets[start : end + 1] - impressions.start,
        profile=take(block.profile, sequences),
        event=take(block.event, events),
        event_time=block.event_time[events],
        event_timed=block.event_timed[events],
        candidate=take(block.candidate, impressions),
        context=take(block.context, impressions),
        dense=block.dense[impressions],
        time=block.time[impressions],
        label=block.label[impressions],
        split=block.split[impressions],
        visible=block.visible[impressions],
        truth=take(block.truth, impressions),
    )
