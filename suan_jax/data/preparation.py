"""Preparation: from a source's raw tables to a store, in memory that does not grow with the log."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console

from suan_jax.data import blocking, row_histories
from suan_jax.data.block import Block
from suan_jax.data.blocking import INDEX, OWNER, RANK, SPLIT, Scale
from suan_jax.data.preparation_summary import Summary
from suan_jax.data.raw_log import ORDER, TEST, TIME, USER, VALIDATION, RawLog, Table, history_column
from suan_jax.data.store_writer import StoreWriter
from suan_jax.data.vocabulary import Buckets, Encoder, HashedIds, Vocabulary, canonical, user_rank
from suan_jax.errors import UserError
from suan_jax.progress import progress
from suan_jax.schema import SPLITS, Schema

ROWS_PER_PARTITION = 2_000_000  # rows of users that are sorted and encoded in memory together
ROWS_BUFFERED = 16_000_000  # rows that wait to be written: a row group of each partition

_ROW_GROUP = 122_880  # rows; the most that a reader takes at once
_PARTITION = "_partition"
_SEEN = "_seen"  # event: a train-period impression sees it; user: impressions in the train period
_LAST = "_last"  # user: time of the last impression in the train period
_SPLIT_INDEX = {name: index for index, name in enumerate(SPLITS)}


def prepare(
    raw: RawLog, out: str | Path, source: str, min_count: int = 2, console: Console | None = None
) -> Summary:
    """Writes a raw log to a store and prints what it holds.

    Memory holds, per user, a few numbers and the profile; per vocabulary, its distinct values; per
    impression, its time (8 bytes, once, for the cut of the validation split); and `ROWS_BUFFERED` rows on
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
      UserError: if `out` exists or a split is empty.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"--out={out} exists already, expected the path of a new store")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        spill = Path(folder)
        users, held_out = _users(raw, source)
        _spill(raw, users, held_out, spill)
        encoders, scales = _encoders(raw, spill, min_count)
        sizes = {name: encoder.size for name, encoder in encoders.items()}
        schema = dataclasses.replace(raw.schema, tables=sizes)
        summary = Summary(schema, dict(raw.notes))
        partitions = int(users[_PARTITION].max()) + 1
        with (
            _writer(out, source, schema, users, encoders, scales, min_count) as writer,
            progress(partitions, "writing blocks") as done,
        ):
            for partition in range(partitions):
                for block in _blocks(spill, partition, schema, encoders, scales):
                    summary.add(block)
                    writer.write(block)
                done.advance()
    summary.print(console)
    return summary


def _writer(
    out: Path,
    source: str,
    schema: Schema,
    users: pl.DataFrame,
    encoders: Mapping[str, Encoder],
    scales: Mapping[str, Scale],
    min_count: int,
) -> StoreWriter:
    vocabularies = {name: encoder for name, encoder in encoders.items() if isinstance(encoder, Vocabulary)}
    return StoreWriter(
        out,
        schema,
        source=source,
        vocabularies={
            name: vocabulary.frame.select(pl.col("value").cast(pl.String).alias("raw"), "id", "count")
            for name, vocabulary in vocabularies.items()
        },
        users=users.select(pl.col(INDEX).alias("index"), pl.col(USER).cast(pl.String).alias("raw")),
        extra={
            "min_count": min_count,
            "dense": {name: dataclasses.asdict(scale) for name, scale in scales.items()},
            "tables": {name: encoder.describe() for name, encoder in encoders.items()},
        },
    )


def _users(raw: RawLog, source: str) -> tuple[pl.DataFrame, pl.Expr]:
    """The users with an impression, in rank order, and which impressions before the test are validation.

    Columns: `_user`, `_count`, `_seen`, `_last`, `_held_out`, `_events`, `_rank`, `_index`, `_partition`.
    """
    train_time = pl.col(TIME).filter(~pl.col(TEST))
    chosen = VALIDATION in raw.impressions.collect_schema()
    mark = pl.col(VALIDATION) if chosen else pl.lit(False)
    own = pl.lit(0)  # events that the impressions bring themselves
    if raw.events is None:
        own = pl.col(history_column(raw.schema.history[0].name)).list.len()
    per_user = raw.impressions.group_by(USER).agg(
        pl.len().alias("_count"),
        train_time.len().alias(_SEEN),
        train_time.max().alias(_LAST),
        (mark & ~pl.col(TEST)).sum().alias("_held_out"),
        own.cast(pl.Int64).sum().alias("_events"),
    )
    users = per_user.collect(engine="streaming")
    total, train = int(users["_count"].sum()), int(users[_SEEN].sum())
    held_out = int(users["_held_out"].sum()) if chosen else round(raw.validation * train)
    if not chosen:
        first = np.iinfo(np.int64).max
        if held_out:
            # A pass of its own: collected together, the rows that both share would wait in memory.
            frame = raw.impressions.filter(~pl.col(TEST)).select(TIME).collect(engine="streaming")
            times = frame[TIME].to_numpy()
            first = int(np.partition(times, train - held_out)[train - held_out])
            held_out = int((times >= first).sum())  # more than asked for, where times are equal
        mark = pl.col(TIME) >= first
    for name, count in (("train", train - held_out), ("test", total - train)):
        if count == 0:
            raise UserError(
                f"{source}: the {name} split is empty ({train} impressions before the test period, of "
                f"which {held_out} for validation, and {total - train} in it), expected at least one"
            )
    if not chosen and raw.validation > 0 and held_out == 0:
        raise UserError(f"{source}: {raw.validation:g} of {train} train impressions leaves validation empty")
    users = users.with_columns(pl.Series(RANK, user_rank(users[USER]))).sort(RANK, USER)
    events = int(users["_events"].sum())
    if raw.events is not None:
        events = raw.events.select(pl.len()).collect(engine="streaming").item()
    partitions = -(-max(total, events) // ROWS_PER_PARTITION)
    users = users.with_row_index(INDEX).with_columns(pl.col(INDEX).cast(pl.Int64))
    per_partition = -(-users.height // partitions)
    return users.with_columns((pl.col(INDEX) // per_partition).alias(_PARTITION)), mark


def _spill(raw: RawLog, users: pl.DataFrame, held_out: pl.Expr, spill: Path) -> None:
    """Writes impressions, events and profiles, with their users' index, to one folder per partition."""
    keys = users.lazy().select(USER, INDEX, RANK, _PARTITION, _SEEN, _LAST)
    split = (
        pl.when(pl.col(TEST))
        .then(_SPLIT_INDEX["test"])
        .when(held_out)
        .then(_SPLIT_INDEX["validation"])
        .otherwise(_SPLIT_INDEX["train"])
    )
    owner = [INDEX, _PARTITION, *([RANK] if raw.events is None else [])]
    impressions = raw.impressions.join(keys.select(USER, *owner), on=USER)
    impressions = impressions.with_columns(split.cast(pl.UInt8).alias(SPLIT))
    frames = {"impressions": impressions.drop(TEST, VALIDATION, USER, strict=False)}
    if raw.events is not None:
        seen = (pl.col(_SEEN) > 0) & (pl.col(TIME).is_null() | (pl.col(TIME) < pl.col(_LAST)))
        events = raw.events.join(keys.drop(RANK), on=USER).with_columns(seen.alias(_SEEN))
        profiles = keys if raw.users is None else keys.join(raw.users, on=USER, how="left")
        frames |= {"events": events.drop(_LAST, USER), "users": profiles.drop(_LAST, USER)}
    entries = max(1, users["_events"].sum() // users["_count"].sum())  # of an impression's own history
    with progress(len(frames), "sorting rows by user") as done:
        for name, frame in frames.items():
            buffered = ROWS_BUFFERED // (entries if name == "impressions" else 1)
            per_partition = buffered // (int(users[_PARTITION].max()) + 1)
            schema = frame.collect_schema()
            (spill / name).mkdir()
            pl.LazyFrame(schema=schema).sink_parquet(spill / f"{name}.parquet")  # what an empty folder reads
            floats = [column for column, dtype in schema.items() if dtype.is_float()]
            frame.with_columns(pl.col(column).fill_nan(None) for column in floats).sink_parquet(
                pl.PartitionBy(spill / name, key=_PARTITION, include_key=True),
                compression="lz4",
                row_group_size=min(max(per_partition, 1), _ROW_GROUP),
                maintain_order=False,  # rows are sorted when they are read
            )
            done.advance()


def _scan(spill: Path, name: str, partition: int | None = None) -> pl.LazyFrame:
    folder = spill / name if partition is None else spill / name / f"{_PARTITION}={partition}"
    files = sorted(folder.rglob("*.parquet"))
    return pl.scan_parquet([spill / f"{name}.parquet", *files], hive_partitioning=False)


def _counts(frame: pl.LazyFrame, weight: pl.Expr, column: str, dtype: pl.DataType) -> pl.DataFrame:
    """Distinct `value`s of a column, as `dtype`, and their `count`s, each row counted `weight` times."""
    rows = frame.select(pl.col(column).alias("value"), weight.cast(pl.Int64).alias("count"))
    if isinstance(frame.collect_schema()[column], pl.List):
        rows = rows.explode("value")
    rows = rows.drop_nulls("value").with_columns(pl.col("value").cast(dtype))
    return rows.group_by("value").agg(pl.col("count").sum()).collect(engine="streaming")


def _encoders(raw: RawLog, spill: Path, min_count: int) -> tuple[dict[str, Encoder], dict[str, Scale]]:
    """Encoders of all tables, and scales of all dense columns, from the train period."""
    impressions = _scan(spill, "impressions").filter(pl.col(SPLIT) != _SPLIT_INDEX["test"])
    # An event of an impression's own history counts once for each train impression that brings it.
    train = dict.fromkeys(("history", "candidate", "context", "profile"), (impressions, pl.lit(1)))
    if raw.events is not None:
        train["history"] = (_scan(spill, "events").filter(pl.col(_SEEN)), pl.lit(1))
        # A profile counts once for each train impression of its user.
        train["profile"] = (_scan(spill, "users").filter(pl.col(_SEEN) > 0), pl.col(_SEEN))
    columns: dict[str, list[tuple[str, str]]] = {}
    for group in train:
        for feature in raw.schema.group(group):
            listed = group == "history" and raw.events is None
            column = history_column(feature.name) if listed else feature.name
            columns.setdefault(feature.table, []).append((group, column))
    encoders: dict[str, Encoder] = {}
    with progress(len(columns), "counting values") as done:
        for name, readers in sorted(columns.items()):
            table = raw.tables.get(name, Table())
            frames = [(*train[group], column) for group, column in readers]
            encoders[name] = _encoder(name, table, frames, min_count)
            done.advance()
    scales = {
        name: _scale(_counts(*train["context"], name, pl.Float64()), name in raw.log1p)
        for name in raw.schema.dense
    }
    return encoders, scales


def _encoder(
    name: str, table: Table, columns: list[tuple[pl.LazyFrame, pl.Expr, str]], min_count: int
) -> Encoder:
    """The encoder of a table that these columns read, each with the weight of its rows."""
    if table.hash_ids:
        return HashedIds(name, table.hash_ids)
    types = {canonical(frame.collect_schema()[column]) for frame, _, column in columns}
    dtype = pl.Int64() if types == {pl.Int64()} else pl.String()
    if table.buckets:
        dtype = pl.Float64()
    parts = [_counts(frame, weight, column, dtype) for frame, weight, column in columns]
    counts = pl.concat(parts).group_by("value").agg(pl.col("count").sum())
    if table.buckets:
        return Buckets.build(counts, table.buckets)
    return Vocabulary.build(counts, min_count if table.min_count is None else table.min_count)


def _scale(counts: pl.DataFrame, log1p: bool) -> Scale:
    ordered = counts.sort("value")  # sums in a fixed order are the same in every run
    values, weights = blocking.squash(ordered["value"].to_numpy(), log1p), ordered["count"].to_numpy()
    if not len(values):
        return Scale(0.0, 1.0, log1p)
    mean = float(np.average(values, weights=weights))
    deviation = float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
    return Scale(mean, deviation if deviation > 0 else 1.0, log1p)


def _blocks(
    spill: Path,
    partition: int,
    schema: Schema,
    encoders: Mapping[str, Encoder],
    scales: Mapping[str, Scale],
) -> Iterator[Block]:
    """The blocks of one partition, whose rows are held in memory meanwhile."""
    by_time = [INDEX, TIME, ORDER]  # nulls, the unknown times, sort first
    impressions = _scan(spill, "impressions", partition).collect()
    if not (spill / "events").exists():
        yield from blocking.cut(row_histories.partition_block(impressions, schema, encoders, scales))
        return
    users = _scan(spill, "users", partition).with_columns(pl.col(INDEX).alias(OWNER)).collect().sort(INDEX)
    events = _scan(spill, "events", partition).collect().sort(by_time)
    block = blocking.partition_block(users, impressions.sort(by_time), events, schema, encoders, scales)
    yield from blocking.cut(block)
