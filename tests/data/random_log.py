"""Small random logs that hold every kind of column, for tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl

from suan_jax.data.block import Block
from suan_jax.data.store_writer import StoreWriter
from suan_jax.schema import SPLITS, Schema
from tests.random_batch import random_ids, random_schema

_START = 1_600_000_000


@dataclasses.dataclass
class RandomLog:
    """A log in memory."""

    schema: Schema
    blocks: list[Block]
    fingerprint: str = "random"

    def __str__(self) -> str:
        return "the random log"

    @property
    def num_blocks(self) -> int:
        return len(self.blocks)

    def counts(self, split: str) -> np.ndarray:
        return np.array([int((block.split == SPLITS.index(split)).sum()) for block in self.blocks])

    def block(self, index: int) -> Block:
        return self.blocks[index]


def random_log(seed: int = 0, blocks: int = 7, sequences: int = 5) -> RandomLog:
    """A log of `blocks` blocks of up to `sequences` users; some have no events, some no impressions."""
    rng = np.random.default_rng(seed)
    schema = random_schema()
    sizes = rng.integers(1, sequences + 1, blocks)
    ranks = np.split(np.sort(rng.random(sizes.sum())), np.cumsum(sizes)[:-1])
    users = np.split(rng.permutation(sizes.sum()), np.cumsum(sizes)[:-1])
    return RandomLog(schema, [random_block(rng, schema, *pair) for pair in zip(users, ranks, strict=True)])


def write_log(path: Path, log: RandomLog, places: np.ndarray, **sizes: int) -> None:
    """Writes a log as a store whose item id i lies at `places[i]`, in place.

    Items have raw values, of which there may be more than the log has; other tables have none.

    Args:
      path: the store.
      log: the log.
      places: the items' new ids, then those of new items.
      **sizes: other sizes of other tables.
    """
    tables = {**log.schema.tables, "item": len(places), **sizes}
    schema = dataclasses.replace(log.schema, tables=tables)
    names = pl.Series("raw", [f"item {index}" for index in range(2, len(places))])
    vocabulary = pl.DataFrame(
        {"raw": names, "id": places[2:].astype(np.int32), "count": np.ones(len(names), int)}
    )
    with StoreWriter(path, schema, source="random", vocabularies={"item": vocabulary.sort("id")}) as writer:
        for block in log.blocks:
            for ids in (block.event, block.candidate):
                ids["item"] = places[ids["item"]].astype(np.int32)
            writer.write(block)


def random_block(rng: np.random.Generator, schema: Schema, user: np.ndarray, rank: np.ndarray) -> Block:
    """A block of the given users: few distinct times, so that they tie, and a third of the events untimed."""
    event_counts, impression_counts = rng.integers(0, 13, len(user)), rng.integers(0, 6, len(user))
    event_offsets = np.concatenate([[0], np.cumsum(event_counts)])
    impression_offsets = np.concatenate([[0], np.cumsum(impression_counts)])
    events, impressions = event_offsets[-1], impression_offsets[-1]

    def times(counts: np.ndarray) -> np.ndarray:
        drawn = [np.sort(rng.integers(0, 60, count)) * 7 + _START for count in counts]
        return np.concatenate(drawn).astype(np.int64)

    time, event_time = times(impression_counts), times(event_counts)
    timed = rng.random(events) < 2 / 3
    visible = [
        _visible(
            event_time[slice(*event_offsets[s : s + 2])], timed[slice(*event_offsets[s : s + 2])], moment
        )
        for s in range(len(user))
        for moment in time[slice(*impression_offsets[s : s + 2])]
    ]
    return Block(
        user=user.astype(np.int64),
        rank=rank,
        event_offsets=event_offsets,
        impression_offsets=impression_offsets,
        profile=random_ids(rng, schema, schema.profile, (len(user),), low=0),
        event=random_ids(rng, schema, schema.history, (events,)),
        event_time=np.where(timed, event_time, 0),
        event_timed=timed,
        candidate=random_ids(rng, schema, schema.candidate, (impressions,)),
        context=random_ids(rng, schema, schema.context, (impressions,)),
        dense=rng.normal(size=(impressions, len(schema.dense))).astype(np.float32),
        time=time,
        label=(rng.random(impressions) < 0.3).astype(np.uint8),
        split=np.digitize(time, [_START + 250, _START + 320]).astype(np.uint8),
        visible=np.array(visible, np.int64),
        truth={"unlimited": rng.normal(size=impressions).astype(np.float32)},
    )


def _visible(time: np.ndarray, timed: np.ndarray, moment: int) -> int:
    """How many events lie before the first that is known not to be earlier than `moment`."""
    late = np.flatnonzero(timed & (time >= moment))
    return int(late[0]) if len(late) else len(time)
