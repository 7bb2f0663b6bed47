"""Preparation: from a source's raw tables to a store, in memory that does not grow with the log."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl
from rich.console import Console

from suan_jax.data import blocking, row_histories
from suan_jax.data.block import Block
from suan_jax.data.blocking import INDEX, OWNER, Scale
from suan_jax.data.counting import build_encoder, counted_keys, sort_out, value_counts
from suan_jax.data.partitioning import (
    Plan,
    number_rows,
    number_users,
    partition_files,
    plan,
    sink_partitions,
    tally,
)
from suan_jax.data.preparation_summary import Summary
from suan_jax.data.raw_log import ORDER, TIME, USER, RawLog
from suan_jax.data.store_writer import StoreWriter
from suan_jax.data.vocabulary import Encoder, Vocabulary
from suan_jax.data.working_folder import working_folder
from suan_jax.errors import UserError
from suan_jax.progress import progress
from suan_jax.schema import Schema

ROWS_PER_PARTITION = 2_000_000  # rows of users that are sorted and encoded in memory together
ROWS_BUFFERED = 16_000_000  # rows that wait to be written: a row group of each partition


def prepare(
    raw: RawLog, out: str | Path, source: str, min_count: int = 2, console: Console | None = None
) -> Summary:
    """Writes a raw log to a store and prints what it holds.

    Memory holds, per user, a few numbers and the profile; per vocabulary, its distinct values; per second
    with an impression, five numbers (once, for the cut of the validation split); and `ROWS_BUFFERED` rows on
    their way to partitions, then one partition of `ROWS_PER_PARTITION`, where the entries of impressions'
    own histories count as rows. All else streams through temporary files beside `out`, removed at the end
    and on failure.

    The train period is what lies before the test period, validation included. Vocabularies, quantiles,
    means and deviations come from the impressions of the train period and from the events that one of
    them sees: an id that training never reads is out of vocabulary, for its row would be untrained.

    Args:
      raw: the log, from a source.
      out: directory of the new store.
      source: name of the source, kept in the store.
      min_count: occurrences below which a value is out of vocabulary, where its table does not say.
      console: where to print; None prints to standard output.

    Raises:
      UserError: if `out` exists or cannot be made, or a split is empty.
    """
    out = check_out(out)
    with working_folder(out, "rows") as spill:
        events = 0
        if raw.events is not None:
            events = raw.events.select(pl.len()).collect(engine="streaming").item()
        planned = plan(tally(raw, raw.impressions), events, raw, source, ROWS_PER_PARTITION)
        users = number_users(raw.impressions, planned.partitions)
        names = _spill(number_rows(raw, users, planned), planned, spill)
        built = {}
        with progress(len(counted_keys(raw)), "counting values") as done:
            for key, counts in value_counts(raw, {name: _scan(spill, name) for name in names}):
                built[key] = build_encoder(raw, key, counts, min_count)
                done.advance()
        encoders, scales = sort_out(raw, built)
        schema = sized(raw.schema, encoders)
        summary = Summary(schema, dict(raw.notes))
        owners = users.select(INDEX, USER)
        with (
            store_writer(out, source, schema, owners, encoders, scales, min_count) as writer,
            progress(planned.partitions, "writing blocks") as done,
        ):
            for partition in range(planned.partitions):
                rows = {name: _scan(spill, name, partition) for name in names}
                for block in partition_blocks(rows, schema, encoders, scales):
                    summary.add(block)
                    writer.write(block)
                # A partition has shards of its own, so that any machine can write them.
                writer.end_shard()
                done.advance()
    summary.print(console)
    return summary


def check_out(out: str | Path) -> Path:
    """The path of a new store.

    Raises:
      UserError: if it exists, be it a link to nowhere, has no name of its own, or cannot be looked at.
    """
    out = Path(out)
    if out.name == "..":
        raise UserError(f"{out} names what is above another folder, expected the path of a new store")
    try:
        out.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return out
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from error
    raise UserError(f"{out} exists already, expected the path of a new store")


def sized(schema: Schema, encoders: Mapping[str, Encoder]) -> Schema:
    """The schema with the sizes of its tables."""
    return dataclasses.replace(schema, tables={name: encoder.size for name, encoder in encoders.items()})


def store_writer(
    out: Path,
    source: str,
    schema: Schema,
    owners: pl.DataFrame,
    encoders: Mapping[str, Encoder],
    scales: Mapping[str, Scale],
    min_count: int,
) -> StoreWriter:
    """The writer of a prepared log, whose `owners` are the columns `_index` and `_user`."""
    vocabularies = {name: encoder for name, encoder in encoders.items() if isinstance(encoder, Vocabulary)}
    return StoreWriter(
        out,
        schema,
        source=source,
        vocabularies={
            name: vocabulary.frame.select(pl.col("value").cast(pl.String).alias("raw"), "id", "count")
            for name, vocabulary in vocabularies.items()
        },
        users=owners.select(pl.col(INDEX).alias("index"), pl.col(USER).cast(pl.String).alias("raw")),
        extra={
            "min_count": min_count,
            "dense": {name: dataclasses.asdict(scale) for name, scale in scales.items()},
            "tables": {name: encoder.describe() for name, encoder in encoders.items()},
        },
    )


def partition_blocks(
    rows: Mapping[str, pl.LazyFrame],
    schema: Schema,
    encoders: Mapping[str, Encoder],
    scales: Mapping[str, Scale],
) -> Iterator[Block]:
    """The blocks of one partition, none if it has no user, from what `number_rows` made of it."""
    by_time = [INDEX, TIME, ORDER]  # nulls, the unknown times, sort first
    impressions = rows["impressions"].collect()
    if impressions.is_empty():
        return
    if "events" not in rows:
        yield from blocking.cut(row_histories.partition_block(impressions, schema, encoders, scales))
        return
    impressions = impressions.sort(by_time)
    users = rows["users"].with_columns(pl.col(INDEX).alias(OWNER)).collect().sort(INDEX)
    events = rows["events"].collect().sort(by_time)
    yield from blocking.cut(blocking.partition_block(users, impressions, events, schema, encoders, scales))


def _spill(frames: Mapping[str, pl.LazyFrame], planned: Plan, spill: Path) -> list[str]:
    """Writes frames to one folder per partition each; returns their names."""
    with progress(len(frames), "sorting rows by user") as done:
        for name, frame in frames.items():
            buffered = ROWS_BUFFERED // (planned.entries if name == "impressions" else 1)
            empty = pl.LazyFrame(schema=frame.collect_schema())
            empty.sink_parquet(spill / f"{name}.parquet")  # what an empty folder reads
            sink_partitions(frame, spill / name, buffered // planned.partitions)
            done.advance()
    return list(frames)


def _scan(spill: Path, name: str, partition: int | None = None) -> pl.LazyFrame:
    paths = [spill / f"{name}.parquet", *partition_files(spill / name, partition)]
    return pl.scan_parquet(paths, hive_partitioning=False)
