import dataclasses
import datetime
import gzip
import re

import polars as pl
import pytest

from suan_jax.data.preparation import prepare
from suan_jax.data.raw_log import ORDER
from suan_jax.data.sources import logs
from suan_jax.data.sources.log_spec import (
    Bucketed,
    Categorical,
    Hashed,
    MultiValued,
    Negatives,
    Numeric,
    load_spec,
)
from suan_jax.data.store import open_store
from suan_jax.errors import UserError
from tests.data.sources.ratings import DAY, SPEC, START, ratings, write


def _bad(column: str, row: int, value) -> pl.DataFrame:
    values = [str(entry) for entry in ratings()[column]]
    values[row - 1] = value
    return ratings().with_columns(pl.Series(column, values))


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        (ratings().drop("price"), {}, r"ratings.csv: column 'price' is missing"),
        (ratings().drop("rating"), {}, r"ratings.csv: column 'rating' is missing"),
        (ratings().head(0), {}, r"ratings.csv is empty"),
        (_bad("who", 7, None), {}, r"ratings.csv: column 'who', row 7 .* key"),
        (_bad("film", 3, None), {}, r"ratings.csv: column 'film', row 3 .* key"),
        (_bad("at", 5, "noon"), {}, r"ratings.csv: column 'at', row 5 holds 'noon'"),
        (_bad("price", 9, "dear"), {}, r"column 'price', row 9 holds 'dear', expected a number"),
        (_bad("rating", 4, "good"), {}, r"column 'rating', row 4 holds 'good'"),
        (_bad("rating", 6, None), {}, r"column 'rating', row 6"),
        (ratings(), {"label": "rating"}, r"column 'rating', row \d+ .* 0 or 1"),
        (ratings(), {"label": "rating > x"}, r"label 'rating > x' is neither"),
        (ratings(), {"time_unit": "ms"}, r"column 'at', row 1 .* after 1970.* 'ms'"),
        (ratings().with_columns(pl.col("at") * 1000), {}, r"column 'at', row 1 .* before 2100.* 's'"),
        (ratings().reverse(), {"ordered": True}, r"column 'at', row 2 .* row above"),
        (ratings(), {"impressions": "none*.csv"}, r"none\*.csv is missing"),
        (ratings(), {"context": (Numeric(name="rating"),)}, r"context declares 'rating', the outcome"),
        (ratings(), {"context": (Numeric(name="price"),) * 2}, r"'price' twice"),
        (ratings(), {"context": (Categorical(name="genre"),)}, r"'genre' is declared twice"),
        (ratings(), {"history": (Categorical(name="genre"),)}, r"history lacks the item column 'film'"),
        (ratings(), {"test_from": "soon"}, r"test_from is 'soon'"),
        (ratings(), {"test_share": 0.5}, r"one of test_from and test_share"),
        (ratings(), {"context": (MultiValued(name="price", values=2),)}, r"'price' is of type .* list"),
        (_bad("price", 2, "1e300"), {}, r"column 'price', row 2 holds '1e300', expected a number of at most"),
        (ratings(), {"impressions": "/ratings.csv"}, r"'/ratings.csv' is no file or glob relative to"),
        (ratings(), {"impressions": "."}, r"'.' is no file or glob relative to"),
    ],
)  # fmt: skip
def test_mistakes_are_named_in_one_sentence(tmp_path, table, change, message):
    write(tmp_path, ratings=table)
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
    write(tmp_path, ratings=None)
    ratings().with_columns(column).write_parquet(tmp_path / "ratings.parquet")
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
    write(tmp_path)
    table = ratings().with_columns(pl.lit("x").alias("hour"))
    table.write_parquet(tmp_path / "a.parquet")
    table.with_columns(column).write_parquet(tmp_path / "b.parquet")
    context = (Categorical(name="hour"),)
    with pytest.raises(UserError, match=message):
        logs.read(tmp_path, dataclasses.replace(SPEC, impressions="?.parquet", context=context))


def test_values_of_lists_are_checked_as_others(tmp_path):
    write(tmp_path)
    cast = (MultiValued(name="people", values=2),)
    spec = dataclasses.replace(SPEC, impressions="ratings.parquet", context=cast)
    for value, message in (
        (pl.lit([2**63], pl.List(pl.UInt64)), r"row 1 holds \[9223372036854775808\], .* below 2\*\*63"),
        (pl.lit([b"\xff"]), "holds bytes, expected text in UTF-8"),
        (pl.lit([datetime.timedelta(1)]), "is of type List.Duration.*, expected texts or numbers"),
    ):
        ratings().with_columns(value.alias("people")).write_parquet(tmp_path / "ratings.parquet")
        with pytest.raises(UserError, match=message):
            logs.read(tmp_path, spec)


def test_columns_that_no_one_asked_for_may_have_any_name(tmp_path):
    write(tmp_path)
    ratings().with_columns(pl.lit(0).alias("_file_row")).write_csv(tmp_path / "ratings.csv")
    logs.read(tmp_path, dataclasses.replace(SPEC, impressions="ratings.csv")).impressions.collect()


@pytest.mark.parametrize("kept", [40, -20])
def test_a_damaged_compressed_file_is_named(tmp_path, kept):
    write(tmp_path)
    content = gzip.compress(ratings().write_csv().encode())
    (tmp_path / "ratings.csv").write_bytes(content[:kept])
    with pytest.raises(UserError, match=r"ratings.csv cannot be read"):
        logs.read(tmp_path, dataclasses.replace(SPEC, impressions="ratings.csv"))


def test_texts_stored_by_dictionary_are_texts(tmp_path):
    spec = dataclasses.replace(SPEC, impressions="ratings.parquet")
    logs_read = []
    for dtype in (pl.String, pl.Categorical):
        write(tmp_path, ratings=ratings().with_columns(pl.col("rating", "film").cast(pl.String).cast(dtype)))
        logs_read.append(logs.read(tmp_path, spec).impressions.collect().sort(ORDER))
    assert logs_read[0].equals(logs_read[1])


def test_a_file_of_another_kind_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "ratings.parquet").write_bytes((tmp_path / "ratings.parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"ratings.parquet cannot be read"):
        logs.read(tmp_path, dataclasses.replace(SPEC, impressions="ratings.parquet"))


def test_a_multi_valued_feature_of_one_value_is_its_first(tmp_path):
    write(tmp_path)
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
    write(tmp_path, films=pl.DataFrame({"film": [1, 2, 1], "genre": "a", "cast": "x"}))
    with pytest.raises(UserError, match=re.escape("films.csv: column 'film', row 3 repeats '1'")):
        logs.read(tmp_path, SPEC)


def test_a_bad_row_is_named_with_its_own_file(tmp_path):
    write(tmp_path, ratings=None)
    ratings().write_csv(tmp_path / "ratings-0.csv")
    _bad("at", 2, None).write_csv(tmp_path / "ratings-1.csv")
    with pytest.raises(UserError, match=r"ratings-1.csv: column 'at', row 2"):
        logs.read(tmp_path, dataclasses.replace(SPEC, impressions="ratings-*.csv"))


def test_empty_split_is_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(UserError, match="test split is empty"):
        prepare(
            logs.read(tmp_path, dataclasses.replace(SPEC, test_from="2030-01-01")), tmp_path / "store", "logs"
        )


def test_a_train_split_that_equal_times_leave_empty_is_refused(tmp_path):
    at = pl.when(pl.col("at") < START + 4 * DAY).then(START).otherwise("at").alias("at")
    write(tmp_path, ratings=ratings().with_columns(at))
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
