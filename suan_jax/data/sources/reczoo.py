"""What the "_x1" logs of RecZoo share: train.csv and test.csv, whose rows bring their own histories.

Zhu et al., "BARS: Towards Open Benchmarking for Recommender Systems", SIGIR 2022,
https://github.com/reczoo/Datasets. The two files are the published split. BARS also stops early on test.csv;
here a part of train.csv is the validation split. No row has a time that a clock could show.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from suan_jax.data.raw_log import LABEL, ORDER, TEST, TIME, USER, history_column
from suan_jax.data.sources.official_csv import OfficialCsv, integer, open_official
from suan_jax.data.sources.raw_table import Check

VALIDATION_SHARE = 0.1  # of the rows of train.csv
_LIST = r"^\d{1,18}(\^\d{1,18})*$"  # which int64 holds


@dataclasses.dataclass(frozen=True)
class Splits:
    """The two files of a log.

    Attributes:
      train: train.csv.
      test: test.csv.
    """

    train: OfficialCsv
    test: OfficialCsv

    @classmethod
    def open(cls, raw: Path, columns: Sequence[str], publication: str, checks: Sequence[Check]) -> Splits:
        """Opens and checks both files.

        Raises:
          UserError: naming the file, and the column and the row where one is wrong.
        """
        train, test = (
            open_official([raw / name], columns, publication) for name in ("train.csv", "test.csv")
        )
        for table in (train, test):
            table.check(checks)
        return cls(train, test)

    def scan(self, columns: Sequence[str]) -> pl.LazyFrame:
        """These columns of both files, as text, with `_order`, those of train.csv first, and `_test`."""
        parts = [
            table.scan(columns).select(*columns, pl.lit(is_test).alias(TEST))
            for table, is_test in ((self.train, False), (self.test, True))
        ]
        return pl.concat(parts).with_row_index(ORDER).with_columns(pl.col(ORDER).cast(pl.Int64))


def keys(user: str, label: str) -> list[pl.Expr]:
    """The columns that every impression has, from the columns of user and label; no time is known."""
    return [
        integer(user).alias(USER),
        pl.lit(0, pl.Int64).alias(TIME),
        ORDER,
        integer(label).cast(pl.UInt8).alias(LABEL),
        TEST,
    ]


def ids(column: str) -> pl.Expr:
    """A column of integers joined by "^" as a list; a missing one is empty."""
    entries = pl.col(column).str.split("^").cast(pl.List(pl.Int64))
    return pl.when(entries.is_null()).then(pl.lit([], pl.List(pl.Int64))).otherwise(entries).alias(column)


def ids_check(column: str) -> Check:
    """Values must be integers joined by "^", or missing."""
    return Check(column, ~pl.col(column).str.contains(_LIST), 'integers joined by "^", of at most 18 digits')


def without_own(rows: pl.LazyFrame, item: str, features: Sequence[str]) -> tuple[pl.LazyFrame, int]:
    """Drops the last entry of a history where it is the very item to be scored, clicked or not.

    It may be the impression's own click; and a history that lacked it only after a click would tell the
    label.

    Args:
      rows: impressions with their history columns.
      item: the feature that names the item.
      features: all history features.

    Returns:
      The rows, and how many entries were dropped.
    """
    past = pl.col(history_column(item))
    own = past.list.last().eq_missing(pl.col(item))
    kept = past.list.len() - own.cast(pl.UInt32)
    shorter = rows.with_columns(pl.col(history_column(name)).list.head(kept) for name in features)
    return shorter, rows.select(own.sum()).collect(engine="streaming").item()
