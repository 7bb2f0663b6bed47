"""Blocks of a log whose impressions bring their own histories, with no history stored twice.

Such logs repeat a user's events in every row. Rows of one user share a sequence of the store where their
histories and profiles are the same, or, where no event has a time, one history is how another begins: the
longer one is stored, and each impression sees as many of its events as its own row had.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import polars as pl

from suan_jax.data import blocking
from suan_jax.data.block import Block
from suan_jax.data.blocking import INDEX, OWNER, Scale
from suan_jax.data.raw_log import HISTORY_TIME, ORDER, TIME, history_column
from suan_jax.data.vocabulary import Encoder
from suan_jax.schema import Schema

_LENGTH = "_length"
_PROFILE, _HISTORY = "_profile", "_history"


def partition_block(
    impressions: pl.DataFrame,
    schema: Schema,
    encoders: Mapping[str, Encoder],
    scales: Mapping[str, Scale],
) -> Block:
    """All rows of consecutive users as one block; an event at or after its impression stays out of sight.

    Args:
      impressions: as in `RawLog`, with `_index` and `_rank` of the user and `_split`, in any order.
      schema: the log's schema.
      encoders: table name to its encoder.
      scales: dense column to its scale.
    """
    columns = {history_column(feature.name): feature.name for feature in schema.history}
    profile = [feature.name for feature in schema.profile]
    if timed := HISTORY_TIME in impressions.columns:
        columns[HISTORY_TIME] = TIME
    rows = _number_sequences(impressions, list(columns), profile, timed)
    # The longest history of a sequence is that of its last row.
    sequences = rows.group_by(INDEX, maintain_order=True).last()
    events = sequences.filter(pl.col(_LENGTH) > 0).select(INDEX, *columns).rename(columns)
    events = events.explode(*columns.values(), keep_nulls=True).with_columns(
        pl.int_range(pl.len()).alias(ORDER), *([] if timed else [pl.lit(None, pl.Int64).alias(TIME)])
    )
    by_time = [INDEX, TIME, ORDER]  # nulls, the unknown times, sort first
    rows = rows.drop(*columns, *profile).sort(by_time)
    block = blocking.partition_block(
        sequences.drop(*columns), rows, events.sort(by_time), schema, encoders, scales
    )
    return dataclasses.replace(block, visible=np.minimum(block.visible, rows[_LENGTH].to_numpy()))


def _number_sequences(
    impressions: pl.DataFrame, columns: list[str], profile: list[str], timed: bool
) -> pl.DataFrame:
    """The rows of each sequence together, by length; `_index` becomes the sequence's, `_owner` the user's."""
    length = pl.col(columns[0]).list.len().fill_null(0).cast(pl.Int64)
    rows = impressions.with_columns(
        length.alias(_LENGTH),
        pl.struct(columns).hash().alias(_HISTORY),  # brings equal histories together, and decides nothing
        pl.struct(profile).hash().alias(_PROFILE) if profile else pl.lit(0).alias(_PROFILE),
    ).sort(INDEX, _PROFILE, _LENGTH, _HISTORY, ORDER)
    shared = [pl.col(name).eq_missing(pl.col(name).shift(1)) for name in (INDEX, *profile)]
    for name in columns:
        later = pl.col(name) if timed else pl.col(name).list.head(pl.col(_LENGTH).shift(1))
        shared.append(later.eq_missing(pl.col(name).shift(1)))
    first_row = ~pl.all_horizontal(shared).fill_null(False)
    number = (first_row.cast(pl.Int64).cum_sum() - 1).alias(INDEX)
    return rows.with_columns(pl.col(INDEX).alias(OWNER), number).drop(_HISTORY, _PROFILE)
