"""KuaiVideo_x1: impressions of short videos on Kuaishou, with what their user clicked and left before.

The user interest modelling challenge of China MM 2018, as prepared for ALPINE (Li et al., MM 2019) and
published by RecZoo, https://huggingface.co/datasets/reczoo/KuaiVideo_x1.

A history is the FIRST 100 videos that the user clicked, a quirk of the source: later clicks never enter it.
The first 100 left unclicked are a multi-valued feature of the profile, for nothing tells where between the
clicks they lay. Kept out: `is_like` and `is_follow`, outcomes of the impression, and an entry that is the
video to be scored, at a history's end. Timestamps tell an order but no hour, so they serve the validation
split alone. The visual embeddings of item_visual_emb_dim64.h5 are not read: no model here takes a frozen
vector per item.

Columns, in any order: timestamp, user_id, item_id, is_click, pos_items, neg_items.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from suan_jax.data.raw_log import TEST, VALIDATION, RawLog, history_column
from suan_jax.data.sources import reczoo
from suan_jax.data.sources.official_csv import integer, integer_check, label_check
from suan_jax.data.sources.raw_table import Check, key_check, number, number_check
from suan_jax.schema import Feature, Schema

PUBLICATION = "KuaiVideo_x1"
COLUMNS = ("timestamp", "user_id", "item_id", "is_click", "pos_items", "neg_items")
LONGEST = 100  # entries of each list

_ITEM = (Feature("item_id", "item_id"),)
SCHEMA = Schema(
    tables={},
    history=_ITEM,
    candidate=_ITEM,
    profile=(Feature("user_id", "user_id"), Feature("neg_items", "item_id", values=LONGEST)),
    item="item_id",
)


def read(raw: Path) -> RawLog:
    """The log in a folder of train.csv and test.csv.

    The last tenth of train.csv by timestamp is the validation split, whatever the order of its rows.

    Raises:
      UserError: naming the file, and the column and the row where one is wrong.
    """
    checks = [
        key_check("timestamp"),
        number_check("timestamp"),
        integer_check("user_id"),
        integer_check("item_id"),
        label_check("is_click"),
    ]
    for column in ("pos_items", "neg_items"):
        entries = pl.col(column).str.count_matches("^", literal=True) + 1
        checks.append(reczoo.ids_check(column))
        checks.append(Check(column, entries > LONGEST, f"at most {LONGEST} entries"))
    splits = reczoo.Splits.open(raw, COLUMNS, PUBLICATION, checks)
    rows = splits.scan(COLUMNS)
    times = rows.filter(~pl.col(TEST)).select(number("timestamp")).collect(engine="streaming")
    first = len(times) - max(1, round(reczoo.VALIDATION_SHARE * len(times)))
    late = number("timestamp") >= np.partition(times["timestamp"].to_numpy(), first)[first]
    impressions = rows.select(
        *reczoo.keys("user_id", "is_click"),
        (~pl.col(TEST) & late).alias(VALIDATION),
        integer("user_id"),
        integer("item_id"),
        reczoo.ids("neg_items"),
        reczoo.ids("pos_items").alias(history_column("item_id")),
    )
    impressions, own = reczoo.without_own(impressions, "item_id", ("item_id",))
    notes = {"history entries that are the video to be scored, dropped": own}
    return RawLog(impressions, None, SCHEMA, notes=notes)
