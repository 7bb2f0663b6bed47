"""TaobaoAd_x1: impressions of Taobao's display advertising, the last 50 behaviours written in each row.

Alibaba's Tianchi data set 56 as prepared for DMR (Lyu et al., AAAI 2020) and published by RecZoo,
https://huggingface.co/datasets/reczoo/TaobaoAd_x1.

The publisher took zeros out of the three lists of a row one by one, so that a behaviour without a brand
shortens one of them. Here lists are aligned from their ends, the most recent behaviour; what a shorter list
lacks at the front is missing. Kept out: `btag`, which repeats one value, and were an outcome if it did not.

Columns, in any order: clk, cate_his, brand_his, btag_his, userid, cms_segid, cms_group_id, final_gender_code,
age_level, pvalue_level, shopping_level, occupation, new_user_class_level, adgroup_id, cate_id, campaign_id,
customer, brand, price, pid.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from suan_jax.data.raw_log import ORDER, TEST, VALIDATION, RawLog, history_column
from suan_jax.data.sources import reczoo
from suan_jax.data.sources.official_csv import integer, integer_check, label_check
from suan_jax.data.sources.raw_table import key_check, number, number_check
from suan_jax.data.sources.taobao_ad import PROFILE, SCHEMA, TABLES

PUBLICATION = "TaobaoAd_x1"
LISTS = {"cate_id": "cate_his", "brand": "brand_his", "btag": "btag_his"}
_ADS = ("adgroup_id", "cate_id", "campaign_id", "customer", "brand")
COLUMNS = ("clk", *LISTS.values(), "userid", *PROFILE, *_ADS, "price", "pid")


def read(raw: Path) -> RawLog:
    """The log in a folder of train.csv and test.csv.

    The last tenth of the rows of train.csv, which its publisher sorted by time, is the validation split.

    Raises:
      UserError: naming the file, and the column and the row where one is wrong.
    """
    checks = [
        label_check("clk"),
        *(reczoo.ids_check(column) for column in LISTS.values()),
        *(integer_check(column) for column in ("userid", "adgroup_id")),
        *(integer_check(column, missing=True) for column in (*PROFILE, *_ADS[1:])),
        number_check("price"),
        key_check("pid"),
    ]
    splits = reczoo.Splits.open(raw, COLUMNS, PUBLICATION, checks)
    rows = splits.scan(COLUMNS)
    lengths = {name: reczoo.ids(column).list.len().cast(pl.Int64) for name, column in LISTS.items()}
    longest = pl.max_horizontal(*lengths.values())
    train = ~pl.col(TEST)
    counts = rows.select(
        train.sum().alias("train"), (pl.min_horizontal(*lengths.values()) < longest).sum().alias("uneven")
    ).collect(engine="streaming")
    first = round((1 - reczoo.VALIDATION_SHARE) * counts["train"].item())
    aligned = [
        pl.concat_list(pl.lit(None, pl.Int64).repeat_by(longest - lengths[name]), reczoo.ids(column)).alias(
            history_column(name)
        )
        for name, column in LISTS.items()
    ]
    impressions = rows.select(
        *reczoo.keys("userid", "clk"),
        (train & (pl.col(ORDER) >= first)).alias(VALIDATION),
        integer("userid").alias("user_id"),
        *(integer(column) for column in (*PROFILE, *_ADS)),
        number("price"),
        "pid",
        *aligned,
    )
    notes = {"rows whose lists differ in length, aligned from the end": counts["uneven"].item()}
    return RawLog(impressions, None, SCHEMA, tables=TABLES, notes=notes)
