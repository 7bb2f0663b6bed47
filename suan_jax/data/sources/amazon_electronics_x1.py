"""AmazonElectronics_x1: reviews of electronics, each with an item drawn at random as its negative.

He and McAuley, "Ups and Downs", WWW 2016, as prepared for DIN (Zhou et al., KDD 2018) and published by
RecZoo, https://huggingface.co/datasets/reczoo/AmazonElectronics_x1.

A history is what the user reviewed before, oldest first, without times; test.csv holds each user's last
review. Kept out: an entry that is the item to be scored, at a history's end.

Columns, in any order: label, user_id, item_id, cate_id, item_history, cate_history.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from suan_jax.data.raw_log import TEST, USER, VALIDATION, RawLog, history_column
from suan_jax.data.sources import reczoo
from suan_jax.data.sources.official_csv import integer, integer_check, label_check
from suan_jax.data.sources.raw_table import Check
from suan_jax.schema import Feature, Schema

PUBLICATION = "AmazonElectronics_x1"
COLUMNS = ("label", "user_id", "item_id", "cate_id", "item_history", "cate_history")

_PAIR = (Feature("item_id", "item_id"), Feature("cate_id", "cate_id"))
SCHEMA = Schema(
    tables={},
    history=_PAIR,
    candidate=_PAIR,
    profile=(Feature("user_id", "user_id"),),
    item="item_id",
    category="cate_id",
)


def read(raw: Path) -> RawLog:
    """The log in a folder of train.csv and test.csv.

    The rows of train.csv with a user's longest history, their last review there and its negative, are the
    validation split, as test.csv holds the last of all.

    Raises:
      UserError: naming the file, and the column and the row where one is wrong.
    """
    entries = [pl.col(name).fill_null("").str.count_matches("^", literal=True) for name in COLUMNS[4:]]
    missing = [pl.col(name).is_null() for name in COLUMNS[4:]]
    checks = [
        label_check("label"),
        *(integer_check(name) for name in ("user_id", "item_id", "cate_id")),
        *(reczoo.ids_check(name) for name in ("item_history", "cate_history")),
        Check(
            "cate_history",
            (entries[0] != entries[1]) | (missing[0] != missing[1]),
            "as many entries as item_history",
        ),
    ]
    splits = reczoo.Splits.open(raw, COLUMNS, PUBLICATION, checks)
    rows = splits.scan(COLUMNS).select(
        *reczoo.keys("user_id", "label"),
        *(integer(name) for name in ("user_id", "item_id", "cate_id")),
        reczoo.ids("item_history").alias(history_column("item_id")),
        reczoo.ids("cate_history").alias(history_column("cate_id")),
        entries[0].alias("_entries"),
    )
    train = rows.filter(~pl.col(TEST)).group_by(USER).agg(pl.col("_entries").max().alias("_longest"))
    rows = rows.join(train, on=USER, how="left")
    last = (~pl.col(TEST) & (pl.col("_entries") == pl.col("_longest"))).fill_null(False).alias(VALIDATION)
    rows = rows.with_columns(last).drop("_entries", "_longest")
    rows, own = reczoo.without_own(rows, "item_id", ("item_id", "cate_id"))
    notes = {"history entries that are the item to be scored, dropped": own}
    return RawLog(rows, None, SCHEMA, notes=notes)
