"""What a source hands to preparation: two tables of raw values, and which columns are features."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import polars as pl

from suan_jax.schema import Schema

# Columns that every source provides; the underscore keeps them apart from feature names.
USER = "_user"
TIME = "_time"
ORDER = "_order"
LABEL = "_label"
TEST = "_test"
VALIDATION = "_validation"  # optional, see `RawLog`

LARGEST = 1e30
"""The largest number of a numeric column: float32 holds it, and float64 sums its square."""


def history_column(name: str) -> str:
    """The impressions' list column of a history feature, where every impression brings its own history."""
    return f"_history_{name}"


HISTORY_TIME = history_column("_time")
"""The list column of such events' times, int64 seconds since 1970; absent where none is known."""


@dataclasses.dataclass(frozen=True)
class Table:
    """How the raw values of one vocabulary become ids; the last two are alternatives to a vocabulary.

    Attributes:
      min_count: occurrences in the train period below which a value is out of vocabulary; None takes the
        setting of the whole preparation.
      hash_ids: if positive, values are hashed into this many ids and no vocabulary is kept.
      buckets: if positive, values are numbers, cut into this many quantiles of the train period.
    """

    min_count: int | None = None
    hash_ids: int = 0
    buckets: int = 0


def _no_pieces(rows: int) -> Mapping[str, list[pl.LazyFrame]]:
    del rows
    return {}


@dataclasses.dataclass(frozen=True)
class RawLog:
    """A click log before preparation, as lazy frames that are read several times and never whole.

    A column is named after its feature. Null means missing; a multi-valued feature is a list column.
    Repeats are dropped by the source already.

    Attributes:
      impressions: `_user`; `_time`, int64 seconds since 1970, 0 throughout a log without a clock; `_order`,
        int64, unique, decides among equal times; `_label`, 0 or 1; `_test`, Boolean, True in the test
        period; candidate, context and dense columns. Optionally `_validation`, Boolean, True in the rows
        before the test period that are set apart.
      events: `_user`; `_time`, null where unknown (such events come first); `_order`; history columns. None
        where every impression brings its own history: then the impressions have a `history_column` per
        history feature, lists of equal lengths, the oldest event first; or, in any order, with
        `HISTORY_TIME`, where times are known; and the profile columns, whose names no other group may have.
      users: `_user`, unique, and the profile columns; None without profile features, or without `events`.
      schema: the features; its `tables` are empty and filled in by preparation.
      tables: vocabularies that differ from the default `Table()`.
      log1p: dense columns that become sign(x) log(1 + |x|) before they are standardised.
      validation: share of the impressions before the test period, the last by time, set apart, unless
        `_validation` says which.
      notes: what the source did, for the printed summary, such as {"repeats dropped": 3}.
      pieces: called with a number of rows, gives frames of at most as many that make up `impressions` and
        `events`, by these names, for machines that read side by side; a frame not named is one piece.
    """

    impressions: pl.LazyFrame
    events: pl.LazyFrame | None
    schema: Schema
    users: pl.LazyFrame | None = None
    tables: Mapping[str, Table] = dataclasses.field(default_factory=dict)
    log1p: tuple[str, ...] = ()
    validation: float = 0.1
    notes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    pieces: Callable[[int], Mapping[str, list[pl.LazyFrame]]] = _no_pieces
