import dataclasses
import datetime
import gzip
import re

import numpy as np
import polars as pl
import pytest

from suan_jax.config import DataConfig
from suan_jax.data import train_iterator
from suan_jax.data.packing import training_rows
from suan_jax.data.preparation import prepare
from suan_jax.data.raw_log import LABEL, ORDER, TEST, TIME, USER
from suan_jax.data.sources import logs
from suan_jax.data.sources.log_spec import (
    Bucketed,
    Categorical,
    Events,
    Hashed,
    Keyed,
    LogSpec,
    MultiValued,
    Negatives,
    Numeric,
    load_spec,
)
from suan_jax.data.sources.negatives import sample_negatives
from suan_jax.data.sources.raw_table import RawTable
from suan_jax.data.store import open_store
from suan_jax.errors import UserError

DAY = 24 * 3600
START = 1_600_000_000
SPEC = LogSpec(
    impressions="ratings.csv",
    user="who",
    item="film",
    time="at",
    label="rating >= 4",
    candidate=(
        Categorical(name="film"),
        Categorical(name="genre"),
        MultiValued(name="cast", values=2, separator="|"),
    ),
    history=(Categorical(name="film"), Categorical(name="genre")),
    profile=(Categorical(name="who"), Hashed(name="city", ids=20), Numeric(name="income", log1p=True)),
    context=(Bucketed(name="length", buckets=3), Numeric(name="price")),
    category="genre",
    items=Keyed(path="films.csv"),
    users=Keyed(path="people.parquet", key="id"),
    test_from="2020-09-17T12:26:40",
)


def _ratings(rows: int = 60) -> pl.DataFrame:
    random = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "who": random.integers(0, 6, rows),
            "film": random.integers(0, 8, rows),
            "at": START + np.arange(rows) * (DAY // 12),
            "rating": random.integers(1, 6, rows),
            "length": random.random(rows),
            "price": random.random(rows),
        }
    )


def _write(folder, **tables: pl.DataFrame | None) -> None:
    default = {
        "ratings": _ratings(),
        "films": pl.DataFrame(
            {"film": range(8), "genre": ["a", "b", None, "a"] * 2, "cast": ["x|y|z", "", None, "y"] * 2}
        ),
        "people": pl.DataFrame({"id": range(6), "city": list("pqrstu"), "income": [1.0, None, 3, 4, 5, 6]}),
    }
    for name, table in {**default, **tables}.items():
        if table is not None:
            table.write_csv(folder / f"{name}.csv")
            table.write_parquet(folder / f"{name}.parquet")


@pytest.mark.smoke
def test_tables_are_joined_and_reach_the_store(tmp_path):
    _write(tmp_path)
    prepare(logs.read(tmp_path, SPEC), tmp_path / "store", "logs", min_count=1)
    store = open_store(tmp_path / "store")
    assert store.schema.dense == ("income", "price") and store.schema.action == "action"
    assert store.schema.tables["city"] == 20 and store.schema.category == "genre"
    block = store.block(0)
    assert block.candidate["cast"].shape == (60, 2)
    assert block.label.sum() == (_ratings()["rating"] >= 4).sum()
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
    _write(tmp_path)
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
    table = _ratings()
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    at = pl.from_epoch("at") if unit == "datetime" else pl.col("at") * scale[unit]
    _write(tmp_path, ratings=table.with_columns(at))
    spec = dataclasses.replace(SPEC, impressions=f"ratings.{kind}", time_unit=unit)
    log = logs.read(tmp_path, spec).impressions.collect().sort(ORDER)
    np.testing.assert_array_equal(log[TIME], table["at"])
    assert (log[TEST] == (log[TIME] >= START + 345_600)).all()


def test_history_is_all_with_the_click_or_the_clicked_ones(tmp_path):
    _write(tmp_path)
    every = logs.read(tmp_path, SPEC).events.collect().sort(ORDER)
    assert every["action"].cast(pl.Int64).to_list() == (_ratings()["rating"] >= 4).cast(int).to_list()
    clicked = logs.read(tmp_path, dataclasses.replace(SPEC, history_of="clicked"))
    assert clicked.events.collect().height == (_ratings()["rating"] >= 4).sum()
    assert clicked.schema.action is None


def test_a_profile_is_of_the_first_impression_by_time_whatever_the_order_of_the_file(tmp_path):
    phase = pl.col("at").rank("ordinal").over("who").alias("phase")
    ratings = _ratings().with_columns(phase).sort("at", descending=True)
    _write(tmp_path, ratings=ratings)
    spec = dataclasses.replace(SPEC, users=None, profile=(Categorical(name="who"), Categorical(name="phase")))
    users = logs.read(tmp_path, spec).users.collect()
    assert users.height == ratings["who"].n_unique()
    assert set(users["phase"]) == {"1"}


def test_own_events_table(tmp_path):
    events = pl.DataFrame(
        {"u": [0, 1], "film": [1, 2], "ms": [START * 1000 - 5000] * 2, "what": ["cart", "buy"]}
    )
    _write(tmp_path, events=events)
    own = Events(path="events.parquet", user="u", time="ms", time_unit="ms", action="what")
    log = logs.read(tmp_path, dataclasses.replace(SPEC, events=own))
    rows = log.events.collect().sort(USER)
    assert rows[TIME].to_list() == [START - 5] * 2
    assert rows["what"].to_list() == ["cart", "buy"] and rows["genre"].to_list() == ["b", None]


def test_repeats_are_dropped_where_asked(tmp_path):
    table = pl.concat([_ratings(), _ratings().head(3).with_columns(pl.lit(5, pl.Int64).alias("rating"))])
    _write(tmp_path, ratings=table)
    log = logs.read(tmp_path, dataclasses.replace(SPEC, drop_repeats=True))
    kept = log.impressions.collect().sort(ORDER)
    assert kept.height == 60 and log.notes == {"repeats dropped": 3}
    assert kept[LABEL].to_list() == (_ratings()["rating"] >= 4).cast(int).to_list()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_test_share_is_the_last_by_time(tmp_path, share):
    _write(tmp_path)
    log = logs.read(tmp_path, dataclasses.replace(SPEC, test_from=None, test_share=share))
    rows = log.impressions.collect().sort(TIME)
    assert rows[TEST].sum() == 60 * share and rows[TEST].is_sorted()


def _bad(column: str, row: int, value) -> pl.DataFrame:
    values = [str(entry) for entry in _ratings()[column]]
    values[row - 1] = value
    return _ratings().with_columns(pl.Series(column, values))


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        (_ratings().drop("price"), {}, r"ratings.csv: column 'price' is missing"),
        (_ratings().drop("rating"), {}, r"ratings.csv: column 'rating' is missing"),
        (_ratings().head(0), {}, r"ratings.csv is empty"),
        (_bad("who", 7, None), {}, r"ratings.csv: column 'who', row 7 .* key"),
        (_bad("film", 3, None), {}, r"ratings.csv: column 'film', row 3 .* key"),
        (_bad("at", 5, "noon"), {}, r"ratings.csv: column 'at', row 5 holds 'noon'"),
        (_bad("price", 9, "dear"), {}, r"column 'price', row 9 holds 'dear', expected a number"),
        (_bad("rating", 4, "good"), {}, r"column 'rating', row 4 holds 'good'"),
        (_bad("rating", 6, None), {}, r"column 'rating', row 6"),
        (_ratings(), {"label": "rating"}, r"column 'rating', row \d+ .* 0 or 1"),
        (_ratings(), {"label": "rating > x"}, r"label 'rating > x' is neither"),
        (_ratings(), {"time_unit": "ms"}, r"column 'at', row 1 .* after 1970.* 'ms'"),
        (_ratings().with_columns(pl.col("at") * 1000), {}, r"column 'at', row 1 .* before 2100.* 's'"),
        (_ratings().reverse(), {"ordered": True}, r"column 'at', row 2 .* row above"),
        (_ratings(), {"impressions": "none*.csv"}, r"none\*.csv is missing"),
        (_ratings(), {"context": (Numeric(name="rating"),)}, r"context declares 'rating', the outcome"),
        (_ratings(), {"context": (Numeric(name="price"),) * 2}, r"'price' twice"),
        (_ratings(), {"context": (Categorical(name="genre"),)}, r"'genre' is declared twice"),
        (_ratings(), {"history": (Categorical(name="genre"),)}, r"history lacks the item column 'film'"),
        (_ratings(), {"test_from": "soon"}, r"test_from is 'soon'"),
        (_ratings(), {"test_share": 0.5}, r"one of test_from and test_share"),
        (_ratings(), {"context": (MultiValued(name="price", values=2),)}, r"'price' is of type .* list"),
        (_bad("price", 2, "1e300"), {}, r"column 'price', row 2 holds '1e300', expected a number of at most"),
        (_ratings(), {"impressions": "/ratings.csv"}, r"'/ratings.csv' is no file or glob relative to"),
        (_ratings(), {"impressions": "."}, r"'.' is no file or glob relative to"),
    ],
)  # fmt: skip
def test_mistakes_are_named_in_one_sentence(tmp_path, table, change, message):
    _write(tmp_path, ratings=table)
    with pytest.raises(UserError, match=message) as raised:
        logs.read(tmp_path, dataclasses.replace(SPEC, **change))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_from": 20200917}, r"test_from is 20200917, expected str"),
        ({"test_from": None, "test_share": float("nan")}, r"test_share is nan, expected a share"),
        ({"min_count": 0}, r"min_count is 0, expected a positive number"),
        ({"profile": "who"}, r"profile is 'who', expected a tuple of columns"),
        ({"context": ("length",)}, r"context is .* expected a tuple of columns"),
        ({"context": (Categorical(name="length", min_count="5"),)}, r"context length.min_count is '5'"),
        ({"context": (MultiValued(name="length", values=0),)}, r"context length.values is 0"),
        ({"context": (MultiValued(name="length", values=2, separator=""),)}, r".*separator is ''"),
        ({"context": (Hashed(name="length", ids=2),)}, r"context length.ids is 2, expected at least 3"),
        ({"context": (Hashed(name="length", ids=2**31),)}, r".*ids is 2147483648, .* below 2147483648"),
        ({"context": (Bucketed(name="length", buckets=0),)}, r"context length.buckets is 0"),
        ({"context": (Categorical(name="_row"),)}, r"a name in context is '_row'"),
        ({"context": (Categorical(name="length", table="../up"),)}, r"a name in context is '../up'"),
        ({"negatives": Negatives(per_positive=0)}, r"negatives.per_positive is 0"),
        ({"negatives": Negatives(days=-1)}, r"negatives.days is -1"),
        ({"negatives": Negatives(seed=-1)}, r"negatives.seed is -1"),
        ({"negatives": Negatives(kind="all")}, r"negatives.kind is 'all', expected one of uniform"),
    ],
)  # fmt: skip
def test_values_of_a_spec_are_checked_before_any_file(tmp_path, change, message):
    with pytest.raises(UserError, match=f"spec: {message}"):
        logs.read(tmp_path, dataclasses.replace(SPEC, **change))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.lit([1]).alias("rating"), r"'rating' is of type List.* one value per row"),
        (pl.struct("who").alias("who"), r"'who' is of type Struct.* one value per row"),
        (pl.lit(b"\xff").alias("who"), r"'who' holds bytes, expected text in UTF-8"),
        (pl.lit(2**63, pl.UInt64).alias("who"), r"'who', row 1 holds 9223372036854775808, .* below 2\*\*63"),
        (pl.col("at").cast(pl.Float32), r"'at' is of type Float32, which cannot hold times"),
        (pl.from_epoch("at").dt.time(), r"'at' is of type Time, which cannot hold times"),
    ],
)
def test_parquet_columns_of_a_wrong_type_are_named(tmp_path, column, message):
    _write(tmp_path, ratings=None)
    _ratings().with_columns(column).write_parquet(tmp_path / "ratings.parquet")
    unit = "datetime" if "Time" in message else "s"
    with pytest.raises(UserError, match=f"ratings.parquet: column {message}"):
        logs.read(tmp_path, dataclasses.replace(SPEC, impressions="ratings.parquet", time_unit=unit))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.concat_list("hour"), r"b.parquet: column 'hour' is of type List.*, expected String as in"),
        (pl.lit(b"\xff").alias("who"), r"b.parquet: column 'who' is of type Binary, expected Int64 as in"),
        (pl.from_epoch("at"), r"b.parquet: column 'at' is of type Datetime.*, expected Int64 as in .*a.parq"),
    ],
)
def test_files_of_one_table_hold_columns_that_go_together(tmp_path, column, message):
    _write(tmp_path)
    ratings = _ratings().with_columns(pl.lit("x").alias("hour"))
    ratings.write_parquet(tmp_path / "a.parquet")
    ratings.with_columns(column).write_parquet(tmp_path / "b.parquet")
    context = (Categorical(name="hour"),)
    with pytest.raises(UserError, match=message):
        logs.read(tmp_path, dataclasses.replace(SPEC, impressions="?.parquet", context=context))


def test_values_of_lists_are_checked_as_others(tmp_path):
    _write(tmp_path)
    cast = (MultiValued(name="people", values=2),)
    spec = dataclasses.replace(SPEC, impressions="ratings.parquet", context=cast)
    for value, message in (
        (pl.lit([2**63], pl.List(pl.UInt64)), r"row 1 holds \[9223372036854775808\], .* below 2\*\*63"),
        (pl.lit([b"\xff"]), "holds bytes, expected text in UTF-8"),
        (pl.lit([datetime.timedelta(1)]), "is of type List.Duration.*, expected texts or numbers"),
    ):
        _ratings().with_columns(value.alias("people")).write_parquet(tmp_path / "ratings.parquet")
        with pytest.raises(UserError, match=message):
            logs.read(tmp_path, spec)


def test_columns_that_no_one_asked_for_may_have_any_name(tmp_path):
    _write(tmp_path)
    _ratings().with_columns(pl.lit(0).alias("_file_row")).write_csv(tmp_path / "ratings.csv")
    logs.read(tmp_path, dataclasses.replace(SPEC, impressions="ratings.csv")).impressions.collect()


@pytest.mark.parametrize("kept", [40, -20])
def test_a_damaged_compressed_file_is_named(tmp_path, kept):
    _write(tmp_path)
    content = gzip.compress(_ratings().write_csv().encode())
    (tmp_path / "ratings.csv").write_bytes(content[:kept])
    with pytest.raises(UserError, match=r"ratings.csv cannot be read"):
        logs.read(tmp_path, dataclasses.replace(SPEC, impressions="ratings.csv"))


def test_texts_stored_by_dictionary_are_texts(tmp_path):
    spec = dataclasses.replace(SPEC, impressions="ratings.parquet")
    logs_read = []
    for dtype in (pl.String, pl.Categorical):
        _write(
            tmp_path, ratings=_ratings().with_columns(pl.col("rating", "film").cast(pl.String).cast(dtype))
        )
        logs_read.append(logs.read(tmp_path, spec).impressions.collect().sort(ORDER))
    assert logs_read[0].equals(logs_read[1])


def test_a_file_of_another_kind_is_named(tmp_path):
    _write(tmp_path)
    (tmp_path / "ratings.parquet").write_bytes((tmp_path / "ratings.parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"ratings.parquet cannot be read"):
        logs.read(tmp_path, dataclasses.replace(SPEC, impressions="ratings.parquet"))


def test_a_multi_valued_feature_of_one_value_is_its_first(tmp_path):
    _write(tmp_path)
    candidate = (Categorical(name="film"), MultiValued(name="cast", values=1, separator="|"))
    spec = dataclasses.replace(SPEC, candidate=candidate, category=None)
    prepare(logs.read(tmp_path, spec), tmp_path / "store", "logs", min_count=1)
    store = open_store(tmp_path / "store")
    films = dict(store.vocabulary("film").select("id", "raw").rows())
    names = dict(store.vocabulary("cast").select("id", "raw").rows())
    block = store.block(0)
    for film, name in zip(block.candidate["film"], block.candidate["cast"], strict=True):
        assert names.get(int(name), "") == ["x", "", "", "y"][int(films[film]) % 4]


def test_a_key_that_repeats_is_named(tmp_path):
    _write(tmp_path, films=pl.DataFrame({"film": [1, 2, 1], "genre": "a", "cast": "x"}))
    with pytest.raises(UserError, match=re.escape("films.csv: column 'film', row 3 repeats '1'")):
        logs.read(tmp_path, SPEC)


def test_a_bad_row_is_named_with_its_own_file(tmp_path):
    _write(tmp_path, ratings=None)
    _ratings().write_csv(tmp_path / "ratings-0.csv")
    _bad("at", 2, None).write_csv(tmp_path / "ratings-1.csv")
    with pytest.raises(UserError, match=r"ratings-1.csv: column 'at', row 2"):
        logs.read(tmp_path, dataclasses.replace(SPEC, impressions="ratings-*.csv"))


def test_empty_split_is_refused(tmp_path):
    _write(tmp_path)
    with pytest.raises(UserError, match="test split is empty"):
        prepare(
            logs.read(tmp_path, dataclasses.replace(SPEC, test_from="2030-01-01")), tmp_path / "store", "logs"
        )


def test_a_train_split_that_equal_times_leave_empty_is_refused(tmp_path):
    at = pl.when(pl.col("at") < START + 4 * DAY).then(START).otherwise("at").alias("at")
    _write(tmp_path, ratings=_ratings().with_columns(at))
    with pytest.raises(UserError, match=r"train split is empty .48 .* of which 48 for validation, and 12"):
        prepare(logs.read(tmp_path, SPEC), tmp_path / "store", "logs")


def test_spec_files(tmp_path):
    path = tmp_path / "spec.py"
    with pytest.raises(UserError, match=r"spec.py is no file"):
        load_spec(path)
    path.write_text("x = 1")
    with pytest.raises(UserError, match=r"no function get_spec"):
        load_spec(path)
    path.write_text("def get_spec():\n    return 1 / 0")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        load_spec(path)
    path.write_text("def get_spec():\n    return 1")
    with pytest.raises(UserError, match="returns a int"):
        load_spec(path)


def _clicks(count=4_000):
    random = np.random.default_rng(0)
    time = np.sort(random.integers(START, START + 40 * DAY, count))
    # Item 0 is as popular as all others together, and item 9 comes up on day 20.
    item = np.where(random.random(count) < 0.5, 0, random.integers(1, 9, count))
    return time, np.where((time > START + 20 * DAY) & (random.random(count) < 0.3), 9, item)


@pytest.mark.parametrize("kind", ["uniform", "popularity", "recent"])
def test_negatives_are_known_items_other_than_the_click(kind):
    time, item = _clicks()
    drawn = sample_negatives(time, item, Negatives(per_positive=3, kind=kind, days=2))
    assert drawn.shape == (len(time), 3)
    assert (drawn != item[:, None]).all()
    row, _ = np.nonzero(drawn >= 0)
    assert len(row) > 0.99 * drawn.size
    first = np.array([time[item == code].min() for code in range(10)])
    assert (first[drawn[drawn >= 0]] < time[row]).all()
    again = sample_negatives(time, item, Negatives(per_positive=3, kind=kind, days=2))
    np.testing.assert_array_equal(drawn, again)
    other = sample_negatives(time, item, Negatives(per_positive=3, kind=kind, days=2, seed=1))
    assert (drawn != other).any()


def test_negatives_follow_their_popularity():
    time, item = _clicks()
    share = {}
    for kind in ("uniform", "popularity", "recent"):
        drawn = sample_negatives(time, item, Negatives(per_positive=3, kind=kind, days=2))
        late = (time > START + 23 * DAY) & (item != 0) & (item != 9)
        share[kind] = [(drawn[late] == code).mean() for code in (0, 9)]
    assert share["uniform"][0] < 0.2 < 0.4 < share["popularity"][0]
    assert share["popularity"][1] + 0.05 < share["recent"][1]


def test_sampled_negatives_take_the_item_table_and_the_context_of_their_click(tmp_path):
    _write(tmp_path)
    spec = dataclasses.replace(SPEC, label=None, negatives=Negatives(per_positive=2))
    log = logs.read(tmp_path, spec)
    rows = log.impressions.collect()
    assert log.events.collect().height == 60
    clicks, negatives = rows.filter(pl.col(LABEL) == 1), rows.filter(pl.col(LABEL) == 0)
    assert clicks.height == 60 and 100 < negatives.height <= 120
    assert rows[ORDER].n_unique() == rows.height
    pairs = negatives.join(clicks, on=[USER, TIME])
    assert pairs.height == negatives.height
    assert (pairs["price"] == pairs["price_right"]).all() and (pairs["film"] != pairs["film_right"]).all()
    genres = dict(enumerate(["a", "b", None, "a"] * 2))
    assert all(genres[int(film)] == genre for film, genre in rows.select("film", "genre").rows())
    with pytest.raises(UserError, match="'length' is a column"):
        candidate = (*SPEC.candidate, Bucketed(name="length"))
        logs.read(tmp_path, dataclasses.replace(spec, candidate=candidate, context=()))


def test_a_click_and_its_negatives_are_one_request_to_packing(tmp_path):
    _write(tmp_path)
    spec = dataclasses.replace(SPEC, label=None, negatives=Negatives(per_positive=2))
    prepare(logs.read(tmp_path, spec), tmp_path / "store", "logs")
    data = DataConfig(max_len=5, packing="request", candidates=3)
    store = open_store(tmp_path / "store")
    batch = next(train_iterator(store, data, 3 * training_rows(store, data).total, seed=0))
    assert (batch.label.sum(axis=1) == 1).all()
    assert batch.candidate_mask.mean() > 0.9
