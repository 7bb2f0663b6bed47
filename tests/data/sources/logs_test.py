import dataclasses

import numpy as np
import polars as pl
import pytest

from suan_jax.data.preparation import prepare
from suan_jax.data.raw_log import LABEL, ORDER, TEST, TIME, USER
from suan_jax.data.sources import logs
from suan_jax.data.sources.log_spec import (
    Categorical,
    Events,
    Keyed,
)
from suan_jax.data.sources.raw_table import RawTable
from suan_jax.data.store import open_store
from tests.data.sources.ratings import SPEC, START, ratings, write


@pytest.mark.smoke
def test_tables_are_joined_and_reach_the_store(tmp_path):
    write(tmp_path)
    prepare(logs.read(tmp_path, SPEC), tmp_path / "store", "logs", min_count=1)
    store = open_store(tmp_path / "store")
    assert store.schema.dense == ("income", "price") and store.schema.action == "action"
    assert store.schema.tables["city"] == 20 and store.schema.category == "genre"
    block = store.block(0)
    assert block.candidate["cast"].shape == (60, 2)
    assert block.label.sum() == (ratings()["rating"] >= 4).sum()
    genre = dict(store.vocabulary("genre").select("raw", "id").rows())
    films = dict(store.vocabulary("film").select("id", "raw").rows())
    for film, kind in zip(block.candidate["film"], block.candidate["genre"], strict=True):
        name = ["a", "b", None, "a"][int(films[film]) % 4]
        assert kind == (0 if name is None else genre[name])


def test_an_empty_text_is_missing_quoted_or_not(tmp_path):
    table = pl.DataFrame({"a": ["x", "", None], "b": ["1", "2", ""]})
    table.write_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text('a,b\nx,1\n"",2\n,""\n')
    for file in ("t.parquet", "t.csv"):
        rows = RawTable.open(tmp_path, file).scan(["a", "b"]).collect()
        assert rows["a"].to_list() == ["x", None, None] and rows["b"].to_list() == ["1", "2", None]


def test_csv_and_parquet_give_the_same_log(tmp_path):
    write(tmp_path)
    other = dataclasses.replace(
        SPEC, impressions="ratings.parquet", items=Keyed(path="films.parquet"), users=SPEC.users
    )
    for spec in (SPEC, other):
        prepare(logs.read(tmp_path, spec), tmp_path / spec.impressions[-3:], "logs")
    first, second = open_store(tmp_path / "csv").block(0), open_store(tmp_path / "uet").block(0)
    for name in ("time", "label", "visible", "dense", "user"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(first.candidate["cast"], second.candidate["cast"])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "datetime"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_time_units(tmp_path, unit, kind):
    table = ratings()
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    at = pl.from_epoch("at") if unit == "datetime" else pl.col("at") * scale[unit]
    write(tmp_path, ratings=table.with_columns(at))
    spec = dataclasses.replace(SPEC, impressions=f"ratings.{kind}", time_unit=unit)
    log = logs.read(tmp_path, spec).impressions.collect().sort(ORDER)
    np.testing.assert_array_equal(log[TIME], table["at"])
    assert (log[TEST] == (log[TIME] >= START + 345_600)).all()


def test_history_is_all_with_the_click_or_the_clicked_ones(tmp_path):
    write(tmp_path)
    every = logs.read(tmp_path, SPEC).events.collect().sort(ORDER)
    assert every["action"].cast(pl.Int64).to_list() == (ratings()["rating"] >= 4).cast(int).to_list()
    clicked = logs.read(tmp_path, dataclasses.replace(SPEC, history_of="clicked"))
    assert clicked.events.collect().height == (ratings()["rating"] >= 4).sum()
    assert clicked.schema.action is None


def test_a_profile_is_of_the_first_impression_by_time_whatever_the_order_of_the_file(tmp_path):
    phase = pl.col("at").rank("ordinal").over("who").alias("phase")
    table = ratings().with_columns(phase).sort("at", descending=True)
    write(tmp_path, ratings=table)
    spec = dataclasses.replace(SPEC, users=None, profile=(Categorical(name="who"), Categorical(name="phase")))
    users = logs.read(tmp_path, spec).users.collect()
    assert users.height == table["who"].n_unique()
    assert set(users["phase"]) == {"1"}


def test_own_events_table(tmp_path):
    events = pl.DataFrame(
        {"u": [0, 1], "film": [1, 2], "ms": [START * 1000 - 5000] * 2, "what": ["cart", "buy"]}
    )
    write(tmp_path, events=events)
    own = Events(path="events.parquet", user="u", time="ms", time_unit="ms", action="what")
    log = logs.read(tmp_path, dataclasses.replace(SPEC, events=own))
    rows = log.events.collect().sort(USER)
    assert rows[TIME].to_list() == [START - 5] * 2
    assert rows["what"].to_list() == ["cart", "buy"] and rows["genre"].to_list() == ["b", None]


def test_repeats_are_dropped_where_asked(tmp_path):
    table = pl.concat([ratings(), ratings().head(3).with_columns(pl.lit(5, pl.Int64).alias("rating"))])
    write(tmp_path, ratings=table)
    log = logs.read(tmp_path, dataclasses.replace(SPEC, drop_repeats=True))
    kept = log.impressions.collect().sort(ORDER)
    assert kept.height == 60 and log.notes == {"repeats dropped": 3}
    assert kept[LABEL].to_list() == (ratings()["rating"] >= 4).cast(int).to_list()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_test_share_is_the_last_by_time(tmp_path, share):
    write(tmp_path)
    log = logs.read(tmp_path, dataclasses.replace(SPEC, test_from=None, test_share=share))
    rows = log.impressions.collect().sort(TIME)
    assert rows[TEST].sum() == 60 * share and rows[TEST].is_sorted()
