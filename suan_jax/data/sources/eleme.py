"""Ele.me: impressions of dishes in a food delivery app, eight days of April 2022.

"Recommendation Data From Ele.me", Alibaba, Tianchi data set 131047, https://tianchi.aliyun.com/dataset/131047.
The files have no header and 39 columns; rows bring the 50 behaviours before them, of up to 30 days.

Kept out: entries at or after the impression's second. The user's and the dish's statistics of the last 7 to
90 days (`ctr_30`, `rank_7` and so on) are taken as the publisher made them, for the days before.

The 39 columns, in this order: label, user_id, gender, visit_city, avg_price, is_supervip, ctr_30, ord_30,
total_amt_30, shop_id, item_id, city_id, district_id, shop_aoi_id, shop_geohash_6, shop_geohash_12, brand_id,
category_1_id, merge_standard_food_id, rank_7, rank_30, rank_90, shop_id_list, item_id_list,
category_1_id_list, merge_standard_food_id_list, brand_id_list, price_list, shop_aoi_id_list,
shop_geohash6_list, timediff_list, hours_list, time_type_list, weekdays_list, times, hours, time_type,
weekdays, geohash12. Lists are separated by semicolons.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from suan_jax.data.raw_log import HISTORY_TIME, LABEL, ORDER, TEST, TIME, USER, RawLog, Table, history_column
from suan_jax.data.sources.official_csv import OfficialCsv, integer, label_check, open_official
from suan_jax.data.sources.raw_table import ROW, Check, key_check, number, number_check, time_checks
from suan_jax.errors import UserError
from suan_jax.schema import Feature, Schema

PUBLICATION = "Tianchi data set 131047"
PATTERN = "D*_*.csv"  # day, part
_USER = "user_id gender visit_city avg_price is_supervip ctr_30 ord_30 total_amt_30".split()
_ITEM = (
    "shop_id item_id city_id district_id shop_aoi_id shop_geohash_6 shop_geohash_12 brand_id category_1_id "
    "merge_standard_food_id rank_7 rank_30 rank_90"
).split()
_LISTS = (
    "shop_id_list item_id_list category_1_id_list merge_standard_food_id_list brand_id_list price_list "
    "shop_aoi_id_list shop_geohash6_list timediff_list hours_list time_type_list weekdays_list"
).split()
_REQUEST = "times hours time_type weekdays geohash12".split()
COLUMNS = ("label", *_USER, *_ITEM, *_LISTS, *_REQUEST)

HISTORY = {
    "item_id": "item_id_list",
    "shop_id": "shop_id_list",
    "category_1_id": "category_1_id_list",
    "merge_standard_food_id": "merge_standard_food_id_list",
    "brand_id": "brand_id_list",
    "shop_aoi_id": "shop_aoi_id_list",
    "shop_geohash_6": "shop_geohash6_list",
    "price": "price_list",
    "period": "time_type_list",
}
_NUMBERS = ("avg_price", "ctr_30", "ord_30", "total_amt_30", "rank_7", "rank_30", "rank_90", "price")
SCHEMA = Schema(
    tables={},
    history=tuple(Feature(name, name) for name in HISTORY),
    candidate=tuple(Feature(name, name) for name in _ITEM),
    profile=tuple(Feature(name, name) for name in _USER),
    context=(
        Feature("hours", "hours"),
        Feature("time_type", "period"),
        Feature("weekdays", "weekdays"),
        Feature("geohash12", "geohash12"),
    ),
    item="item_id",
    category="category_1_id",
)
TABLES = {name: Table(buckets=20) for name in _NUMBERS}

_TICKS = (1, 1000)  # `timediff_list` is in seconds or in milliseconds
_SAMPLE = 10_000  # rows that tell which
_NUMERIC = r"^(-?\d+(\.\d+)?)?(;(-?\d+(\.\d+)?)?)*$"


def read(raw: Path) -> RawLog:
    """The log in a folder of files DAY_PART such as D1_0.csv.

    The last day there is, D8 of the whole log, tests. `timediff_list` is how long before the impression an
    entry lies; whether in seconds or milliseconds, `hours_list` tells.

    Raises:
      UserError: naming the file, and the column and the row where one is wrong.
    """
    days: dict[int, list[Path]] = {}
    for file in sorted(raw.glob(PATTERN)):
        if match := re.fullmatch(r"D(\d+)_\d+\.csv", file.name):
            days.setdefault(int(match[1]), []).append(file)
    if len(days) < 2:
        raise UserError(
            f"{raw} holds {len(days)} days of files {PATTERN}, expected two or more of {PUBLICATION}"
        )
    last = days.pop(max(days))
    train, test = (
        open_official(files, COLUMNS, PUBLICATION, header=False)
        for files in ([file for files in days.values() for file in files], last)
    )
    for table in (train, test):
        _check(table)
    before = _numbers("timediff_list") / _ticks(train)
    parts = [
        train.scan(COLUMNS).with_columns(pl.lit(False).alias(TEST)),
        test.scan(COLUMNS).with_columns(pl.lit(True).alias(TEST)),
    ]
    rows = pl.concat(parts).drop(ROW).with_row_index(ORDER)
    impressions = rows.select(
        pl.col("user_id").alias(USER),
        integer("times").alias(TIME),
        pl.col(ORDER).cast(pl.Int64),
        integer("label").cast(pl.UInt8).alias(LABEL),
        TEST,
        *(number(name) if name in _NUMBERS else pl.col(name) for name in (*_USER, *_ITEM, *_REQUEST[1:])),
        *(_history(name).alias(history_column(name)) for name in HISTORY),
        (integer("times") - before).cast(pl.List(pl.Int64)).alias(HISTORY_TIME),
    )
    return RawLog(impressions, None, SCHEMA, tables=TABLES)


def _entries(column: str) -> pl.Expr:
    """A list as texts; a missing one is empty, and an empty entry missing."""
    entries = pl.col(column).str.split(";").list.eval(pl.when(pl.element() != "").then(pl.element()))
    return pl.when(entries.is_null()).then(pl.lit([], pl.List(pl.String))).otherwise(entries).alias(column)


def _numbers(column: str) -> pl.Expr:
    return _entries(column).cast(pl.List(pl.Float64))


def _history(name: str) -> pl.Expr:
    return (_numbers if name in _NUMBERS else _entries)(HISTORY[name])


def _check(table: OfficialCsv) -> None:
    keys = [key_check(column) for column in ("user_id", "item_id", "shop_id", "hours")]
    lengths = {
        column: _entries(column).list.len() for column in (*HISTORY.values(), "timediff_list", "hours_list")
    }
    uneven = [
        Check(column, length != lengths["item_id_list"], "as many entries as item_id_list")
        for column, length in lengths.items()
    ]
    numeric = [
        Check(column, ~pl.col(column).str.contains(_NUMERIC), 'numbers joined by ";"')
        for column in ("timediff_list", "hours_list", "price_list")
    ]
    numbers = [number_check(name) for name in (*_NUMBERS[:-1], "hours")]
    table.check([label_check("label"), *keys, *time_checks(table, "times", "s"), *numbers, *numeric, *uneven])


def _ticks(table: OfficialCsv) -> int:
    """How many units of `timediff_list` make a second: the unit that puts most entries in their hours.

    Hours are those of the row's own clock, told by `times` and `hours`, so no time zone is taken for granted.

    Raises:
      UserError: if it puts fewer than half of the entries there.
    """
    rows = table.scan(("times", "hours", "timediff_list", "hours_list")).head(_SAMPLE)
    entries = rows.select(
        integer("times").alias("time"),
        number("hours").cast(pl.Int64).alias("hour"),
        _numbers("timediff_list").alias("before"),
        _numbers("hours_list").cast(pl.List(pl.Int64)).alias("then"),
    )
    entries = entries.explode("before", "then").drop_nulls().collect()
    if not entries.height:
        return 1
    time, hour = pl.col("time"), pl.col("hour")
    agree = {
        ticks: entries.select(
            (
                (((time - pl.col("before") / ticks) // 3600 - time // 3600 + hour) % 24) == pl.col("then")
            ).mean()
        ).item()
        for ticks in _TICKS
    }
    best = max(agree, key=agree.get)
    if agree[best] < 0.5:
        raise UserError(
            f"{table.name}: column 'timediff_list' puts only {agree[best]:.0%} of the entries in the hour "
            f"that hours_list tells, expected at least half, in seconds or milliseconds before times"
        )
    return best
