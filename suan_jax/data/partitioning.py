"""Cuts a raw log into partitions of users: ranges of the users' hash, each of which is prepared on its own.

What needs the whole log is a `Plan`, made from counts per second, which add up over any pieces of it. All
else is a function of the rows of some users, the whole log or one partition.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

from suan_jax.data.blocking import INDEX, RANK, SPLIT
from suan_jax.data.raw_log import TEST, TIME, USER, VALIDATION, RawLog, history_column
from suan_jax.data.vocabulary import user_rank
from suan_jax.errors import UserError
from suan_jax.schema import SPLITS

PARTITION = "_partition"
SEEN = "_seen"  # event: a train-period impression sees it; user: impressions in the train period
SPLIT_INDEX = {name: index for index, name in enumerate(SPLITS)}

_LAST = "_last"  # user: time of the last impression in the train period
_ROW_GROUP = 122_880  # rows; the most that a reader takes at once
_COUNTS = ("_impressions", "_train", "_held_out", "_entries")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the rows of some users cannot tell.

    Attributes:
      first_held_out: second from which on impressions before the test period are for validation; None where
        the log's `_validation` tells.
      partitions: number of partitions.
      entries: events that an impression brings itself, the mean, at least 1.
    """

    first_held_out: int | None
    partitions: int
    entries: int


def tally(raw: RawLog, impressions: pl.LazyFrame) -> pl.DataFrame:
    """Counts per second of some impressions of a log; see `add_tallies` and `plan`."""
    mark = pl.col(VALIDATION) if VALIDATION in impressions.collect_schema() else pl.lit(False)
    own = pl.lit(0)  # events that the impressions bring themselves
    if raw.events is None:
        own = pl.col(history_column(raw.schema.history[0].name)).list.len()
    counts = (pl.len(), (~pl.col(TEST)).sum(), (mark & ~pl.col(TEST)).sum(), own.cast(pl.Int64).sum())
    per_second = impressions.group_by(TIME).agg(
        count.cast(pl.Int64).alias(name) for name, count in zip(_COUNTS, counts, strict=True)
    )
    return per_second.collect(engine="streaming")


def add_tallies(tallies: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """The tally of pieces together, at least one."""
    return pl.concat(tallies).group_by(TIME).agg(pl.col(name).sum() for name in _COUNTS)


def plan(tallied: pl.DataFrame, events: int, raw: RawLog, source: str, rows: int) -> Plan:
    """The plan of a log.

    Args:
      tallied: the tally of all impressions.
      events: number of rows of `raw.events`.
      raw: the log.
      source: its name, for errors.
      rows: impressions, and events, of a partition on average at most.

    Raises:
      UserError: if a split is empty.
    """
    total, train, held_out, entries = (int(tallied[name].sum()) for name in _COUNTS)
    first = None
    if VALIDATION not in raw.impressions.collect_schema():
        first, held_out = np.iinfo(np.int64).max, round(raw.validation * train)
        if held_out:
            later = tallied.sort(TIME, descending=True).with_columns(pl.col("_train").cum_sum())
            first, held_out = later.filter(pl.col("_train") >= held_out).select(TIME, "_train").row(0)
            # The second is more than asked for, where times are equal.
    for name, count in (("train", train - held_out), ("test", total - train)):
        if count == 0:
            raise UserError(
                f"{source}: the {name} split is empty ({train} impressions before the test period, of "
                f"which {held_out} for validation, and {total - train} in it), expected at least one"
            )
    if first is not None and raw.validation > 0 and held_out == 0:
        raise UserError(f"{source}: {raw.validation:g} of {train} train impressions leaves validation empty")
    partitions = -(-max(total, events if raw.events is not None else entries) // rows)
    return Plan(None if first is None else int(first), partitions, max(1, entries // total))


def number_users(impressions: pl.LazyFrame, partitions: int) -> pl.DataFrame:
    """The users of some impressions in rank order.

    Columns: `_user`, `_seen`, `_last`, `_rank`, `_index` from 0 on, `_partition`.
    """
    train_time = pl.col(TIME).filter(~pl.col(TEST))
    per_user = impressions.group_by(USER).agg(train_time.len().alias(SEEN), train_time.max().alias(_LAST))
    users = assign_partitions(per_user.collect(engine="streaming"), partitions).sort(RANK, USER)
    return users.with_row_index(INDEX).with_columns(pl.col(INDEX).cast(pl.Int64))


def assign_partitions(users: pl.DataFrame, partitions: int) -> pl.DataFrame:
    """Adds `_rank` and `_partition`, the range of ranks that it falls in, to distinct users."""
    ranked = users.with_columns(pl.Series(RANK, user_rank(users[USER])))
    return ranked.with_columns((pl.col(RANK) * partitions).floor().cast(pl.Int64).alias(PARTITION))


def number_rows(raw: RawLog, users: pl.DataFrame, plan: Plan) -> dict[str, pl.LazyFrame]:
    """Impressions, events and profiles of some users, by name, with the users' `_index` and `_partition`.

    Impressions get `_split`, events `_seen`; rows of other users are left out. The last two are missing where
    impressions bring their own histories.
    """
    keys = users.lazy().select(USER, INDEX, RANK, PARTITION, SEEN, _LAST)
    held_out = pl.col(VALIDATION) if plan.first_held_out is None else pl.col(TIME) >= plan.first_held_out
    split = (
        pl.when(pl.col(TEST))
        .then(SPLIT_INDEX["test"])
        .when(held_out)
        .then(SPLIT_INDEX["validation"])
        .otherwise(SPLIT_INDEX["train"])
    )
    owner = [INDEX, PARTITION, *([RANK] if raw.events is None else [])]
    impressions = raw.impressions.join(keys.select(USER, *owner), on=USER)
    impressions = impressions.with_columns(split.cast(pl.UInt8).alias(SPLIT))
    frames = {"impressions": impressions.drop(TEST, VALIDATION, USER, strict=False)}
    if raw.events is not None:
        seen = (pl.col(SEEN) > 0) & (pl.col(TIME).is_null() | (pl.col(TIME) < pl.col(_LAST)))
        events = raw.events.join(keys.drop(RANK), on=USER).with_columns(seen.alias(SEEN))
        profiles = keys if raw.users is None else keys.join(raw.users, on=USER, how="left")
        frames |= {"events": events.drop(_LAST, USER), "users": profiles.drop(_LAST, USER)}
    return frames


def sink_partitions(frame: pl.LazyFrame, folder: Path, rows: int) -> None:
    """Streams a frame into files of a new folder, apart by `_partition`; numbers that are none become null.

    Args:
      frame: the rows, in any order.
      folder: the folder; the files of partition p lie in its folder `_partition=p`.
      rows: rows of each partition that wait in memory to be written.
    """
    folder.mkdir()
    floats = [column for column, dtype in frame.collect_schema().items() if dtype.is_float()]
    frame.with_columns(pl.col(column).fill_nan(None) for column in floats).sink_parquet(
        pl.PartitionBy(folder, key=PARTITION, include_key=True),
        compression="lz4",
        row_group_size=min(max(rows, 1), _ROW_GROUP),
        maintain_order=False,  # rows are sorted when they are read
    )


def partition_files(folder: Path, partition: int | None = None) -> list[Path]:
    """The files of a folder that `sink_partitions` wrote, of one partition or of all."""
    within = folder if partition is None else folder / f"{PARTITION}={partition}"
    return sorted(within.rglob("*.parquet"))
