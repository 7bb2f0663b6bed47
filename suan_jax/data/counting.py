"""Encoders and scales, from counts of the values that training reads; counts add up over partitions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import polars as pl

from suan_jax.data.blocking import SPLIT, Scale, squash
from suan_jax.data.partitioning import SEEN, SPLIT_INDEX
from suan_jax.data.raw_log import RawLog, Table, history_column
from suan_jax.data.vocabulary import Buckets, Encoder, HashedIds, Vocabulary, canonical

Key = tuple[str, str]
"""What values are counted for: ("table", its name) or ("dense", the column)."""


def counted_keys(raw: RawLog) -> list[Key]:
    """What is counted in a log, each once; tables of hashed ids need no counts."""
    tables = {feature.table for _, feature in _features(raw)}
    counted = sorted(name for name in tables if not _table(raw, name).hash_ids)
    return [*(("table", name) for name in counted), *(("dense", name) for name in raw.schema.dense)]


def value_counts(raw: RawLog, rows: Mapping[str, pl.LazyFrame]) -> Iterator[tuple[Key, pl.DataFrame]]:
    """Distinct `value`s that training reads, and their `count`s, key by key in the order of `counted_keys`.

    Args:
      raw: the log's schema and tables; its frames are not read.
      rows: what `number_rows` made of the whole log or of a partition.
    """
    impressions = rows["impressions"].filter(pl.col(SPLIT) != SPLIT_INDEX["test"])
    # An event of an impression's own history counts once for each train impression that brings it.
    train = dict.fromkeys(("history", "candidate", "context", "profile"), (impressions, pl.lit(1)))
    if "events" in rows:
        train["history"] = (rows["events"].filter(pl.col(SEEN)), pl.lit(1))
        # A profile counts once for each train impression of its user.
        train["profile"] = (rows["users"].filter(pl.col(SEEN) > 0), pl.col(SEEN))
    columns: dict[str, list[tuple[str, str]]] = {}
    for group, feature in _features(raw):
        listed = group == "history" and "events" not in rows
        column = history_column(feature.name) if listed else feature.name
        columns.setdefault(feature.table, []).append((group, column))
    for kind, name in counted_keys(raw):
        if kind == "dense":
            readers, dtype = [("context", name)], pl.Float64()
        else:
            readers = columns[name]
            types = {canonical(train[group][0].collect_schema()[column]) for group, column in readers}
            dtype = pl.Int64() if types == {pl.Int64()} else pl.String()
            if _table(raw, name).buckets:
                dtype = pl.Float64()
        yield (kind, name), add_counts(_count(*train[group], column, dtype) for group, column in readers)


def add_counts(counts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """The counts of several frames together, at least one."""
    return pl.concat(counts).group_by("value").agg(pl.col("count").sum())


def build_encoder(raw: RawLog, key: Key, counts: pl.DataFrame, min_count: int) -> Encoder | Scale:
    """The encoder of a table, or the scale of a dense column, from its counts."""
    kind, name = key
    if kind == "dense":
        return _scale(counts, name in raw.log1p)
    table = _table(raw, name)
    if table.buckets:
        return Buckets.build(counts, table.buckets)
    return Vocabulary.build(counts, min_count if table.min_count is None else table.min_count)


def sort_out(
    raw: RawLog, built: Mapping[Key, Encoder | Scale]
) -> tuple[dict[str, Encoder], dict[str, Scale]]:
    """What was built for all `counted_keys`: the encoders of all tables, by name, and the columns' scales."""
    encoders: dict[str, Encoder] = {}
    for name in sorted({feature.table for _, feature in _features(raw)}):
        ids = _table(raw, name).hash_ids
        encoders[name] = HashedIds(name, ids) if ids else built["table", name]
    return encoders, {name: built["dense", name] for name in raw.schema.dense}


def _features(raw: RawLog) -> list:
    groups = ("history", "candidate", "context", "profile")
    return [(group, feature) for group in groups for feature in raw.schema.group(group)]


def _table(raw: RawLog, name: str) -> Table:
    return raw.tables.get(name, Table())


def _count(frame: pl.LazyFrame, weight: pl.Expr, column: str, dtype: pl.DataType) -> pl.DataFrame:
    """Distinct `value`s of a column, as `dtype`, and their `count`s, each row counted `weight` times."""
    rows = frame.select(pl.col(column).alias("value"), weight.cast(pl.Int64).alias("count"))
    if isinstance(frame.collect_schema()[column], pl.List):
        rows = rows.explode("value")
    rows = rows.drop_nulls("value").with_columns(pl.col("value").cast(dtype))
    return rows.group_by("value").agg(pl.col("count").sum()).collect(engine="streaming")


def _scale(counts: pl.DataFrame, log1p: bool) -> Scale:
    ordered = counts.sort("value")  # sums in a fixed order are the same in every run
    values, weights = squash(ordered["value"].to_numpy(), log1p), ordered["count"].to_numpy()
    if not len(values):
        return Scale(0.0, 1.0, log1p)
    mean = float(np.average(values, weights=weights))
    deviation = float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
    return Scale(mean, deviation if deviation > 0 else 1.0, log1p)
