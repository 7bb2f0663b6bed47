"""Taobao's display advertising: 26.6 million impressions of eight days of May 2017, 723 million behaviours.

"Ad Display/Click Data on Taobao.com", Alibaba, Tianchi data set 56, https://tianchi.aliyun.com/dataset/56.

The behaviours name no item, only its category and its brand; so the brand plays the part of the item. Kept
out: `nonclk`, which is the label the other way round, and every behaviour at or after an impression's second,
for `behavior_log.csv` runs on through the test day and holds what a click led to.

Columns, in any order:
  raw_sample.csv: user, time_stamp, adgroup_id, pid, nonclk, clk
  ad_feature.csv: cate_id, brand, adgroup_id, campaign_id, customer, price
  user_profile.csv: userid, cms_segid, cms_group_id, final_gender_code, age_level, pvalue_level,
    shopping_level, occupation, new_user_class_level
  behavior_log.csv: user, time_stamp, btag, cate, brand
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from suan_jax.data.raw_log import LABEL, ORDER, TEST, TIME, USER, RawLog, Table
from suan_jax.data.sources.official_csv import (
    OfficialCsv,
    integer,
    integer_check,
    label_check,
    open_official,
)
from suan_jax.data.sources.raw_table import ROW, Check, check_unique, number, number_check, time_checks
from suan_jax.schema import Feature, Schema

TEST_FROM = 1494604800  # 13 May 2017, 00:00 in Beijing, the last day

PUBLICATION = "Tianchi data set 56"
IMPRESSIONS, ADS = "raw_sample.csv", "ad_feature.csv"
USERS, BEHAVIOURS = "user_profile.csv", "behavior_log.csv"

PROFILE = (
    "cms_segid",
    "cms_group_id",
    "final_gender_code",
    "age_level",
    "pvalue_level",
    "shopping_level",
    "occupation",
    "new_user_class_level",
)
_SOMETIMES_MISSING = ("pvalue_level", "new_user_class_level")
_ACTIONS = ("pv", "ipv", "cart", "fav", "buy")

SCHEMA = Schema(
    tables={},
    history=(Feature("cate_id", "cate_id"), Feature("brand", "brand"), Feature("btag", "btag")),
    candidate=tuple(
        Feature(name, name) for name in ("cate_id", "brand", "adgroup_id", "campaign_id", "customer", "price")
    ),
    profile=tuple(Feature(name, name) for name in ("user_id", *PROFILE)),
    context=(Feature("pid", "pid"),),
    item="brand",
    category="cate_id",
    action="btag",
)
TABLES = {"price": Table(buckets=20), "btag": Table(min_count=1)}


def read(raw: Path) -> RawLog:
    """The log in a folder of the four official files.

    Up to 12 May train, 13 May tests, days being Beijing's. A user's history is all of their behaviours, of
    which "ipv" is another word for "pv". Users without a profile, and ads without a brand, have missing
    values.

    Raises:
      UserError: naming the file, and the column and the row where one is wrong.
    """
    log = open_official(
        [raw / IMPRESSIONS], ("user", "time_stamp", "adgroup_id", "pid", "nonclk", "clk"), PUBLICATION
    )
    ads = open_official([raw / ADS], [feature.name for feature in SCHEMA.candidate], PUBLICATION)
    users = open_official([raw / USERS], ("userid", *PROFILE), PUBLICATION)
    past = open_official([raw / BEHAVIOURS], ("user", "time_stamp", "btag", "cate", "brand"), PUBLICATION)
    _check(log, ads, users, past)
    impressions = log.scan(["user", "time_stamp", "adgroup_id", "pid", "clk"]).select(
        integer("user").alias(USER),
        integer("time_stamp").alias(TIME),
        pl.col(ROW).alias(ORDER),
        integer("clk").cast(pl.UInt8).alias(LABEL),
        (integer("time_stamp") >= TEST_FROM).alias(TEST),
        integer("adgroup_id"),
        "pid",
    )
    names = [feature.name for feature in SCHEMA.candidate]
    products = ads.scan(names).select(integer(name) if name != "price" else number(name) for name in names)
    events = past.scan(["user", "time_stamp", "btag", "cate", "brand"]).select(
        integer("user").alias(USER),
        integer("time_stamp").alias(TIME),
        pl.col(ROW).alias(ORDER),
        integer("cate").alias("cate_id"),
        integer("brand"),
        pl.col("btag").replace({"ipv": "pv"}),
    )
    profiles = users.scan(["userid", *PROFILE]).select(
        integer("userid").alias(USER), integer("userid").alias("user_id"), *map(integer, PROFILE)
    )
    return RawLog(impressions.join(products, on="adgroup_id", how="left"), events, SCHEMA, profiles, TABLES)


def _check(log: OfficialCsv, ads: OfficialCsv, users: OfficialCsv, past: OfficialCsv) -> None:
    both = Check("nonclk", integer("nonclk").eq_missing(integer("clk")), "the opposite of clk")
    keys = [integer_check(column) for column in ("user", "adgroup_id")]
    log.check([*keys, *time_checks(log, "time_stamp", "s"), label_check("clk"), label_check("nonclk"), both])
    optional = [
        integer_check(column, missing=True) for column in ("cate_id", "campaign_id", "customer", "brand")
    ]
    ads.check([integer_check("adgroup_id"), *optional, number_check("price")])
    users.check(
        [integer_check("userid"), *(integer_check(name, name in _SOMETIMES_MISSING) for name in PROFILE)]
    )
    action = Check("btag", ~pl.col("btag").is_in(_ACTIONS).fill_null(False), f"one of {', '.join(_ACTIONS)}")
    codes = [integer_check(column, missing=True) for column in ("cate", "brand")]
    past.check([integer_check("user"), *time_checks(past, "time_stamp", "s"), action, *codes])
    check_unique(ads, "adgroup_id")
    check_unique(users, "userid")
