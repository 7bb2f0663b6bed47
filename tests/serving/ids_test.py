import numpy as np
import polars as pl
import pytest

from suan_jax.data.raw_log import ORDER
from suan_jax.data.sources import logs
from suan_jax.data.sources.log_spec import Categorical, LogSpec, MultiValued
from suan_jax.data.vocabulary import Buckets, HashedIds, Vocabulary, encode_column
from suan_jax.errors import UserError
from suan_jax.serving.ids import IdentityEncoder, make_encoder, raw_series


def online(offline, table, values, several=False):
    """What serving makes of raw values by the description of preparation's encoder."""
    frame = getattr(offline, "frame", None)
    ids = {} if frame is None else dict(zip(frame["value"].cast(pl.String), frame["id"], strict=True))
    encoder = make_encoder(table, offline.describe(), ids)
    series = raw_series(encoder, values, several, table)
    return encode_column(encoder, series, 2 if several else 1)


def vocabulary(values):
    return Vocabulary.build(pl.DataFrame({"value": values, "count": range(1, len(values) + 1)}), min_count=1)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("offline", "values"),
    [
        (vocabulary([5, -3, 70]), [70, None, 5, 6, -3]),
        (vocabulary(["a", "5", "é"]), ["é", "a", None, "b", "5"]),
        (vocabulary(["true", "false"]), ["true", "false", None]),
        (HashedIds("shop", 50), [7, 8, None, -9]),
        (HashedIds("shop", 50), ["x", "8", None, "é"]),
        (Buckets(np.array([0.5, 2.0, 2.5])), [0.4, 0.5, 2.0, 99.0, None]),
    ],
)
def test_ids_are_those_of_preparation(offline, values):
    expected = offline.encode(pl.Series(values))
    np.testing.assert_array_equal(online(offline, "shop", values), expected)
    assert expected.dtype == np.int32 and len(set(expected.tolist())) > 2
    lists = [values[:1], values[1:4], [], None]
    np.testing.assert_array_equal(
        online(offline, "shop", lists, several=True), encode_column(offline, pl.Series(lists), 2)
    )


def test_numbers_and_texts_that_look_alike_are_the_same():
    offline = vocabulary([5, 70])
    np.testing.assert_array_equal(online(offline, "shop", [5, "5"]), online(offline, "shop", ["5", 5]))
    np.testing.assert_array_equal(online(vocabulary(["true", "1"]), "", [True, 1]), [3, 2])
    assert online(offline, "shop", [float("nan")]) == 0
    assert online(HashedIds("shop", 50), "shop", [""]) == 0  # as where logs are prepared


def test_an_empty_text_is_missing_in_a_list_as_where_logs_are_prepared(tmp_path):
    lists = [["", "x", "y"], ["z"], [""], None]
    table = pl.DataFrame({"list": lists, "text": ["|x|y", "z", "", None]}).with_columns(
        who=pl.lit(1), item=pl.lit(2), at=pl.int_range(pl.len()) + 10**9, label=pl.lit(1)
    )
    table.write_parquet(tmp_path / "t.parquet")
    spec = LogSpec(
        impressions="t.parquet",
        user="who",
        item="item",
        time="at",
        label="label",
        candidate=(
            Categorical(name="item"),
            MultiValued(name="list", values=2),
            MultiValued(name="text", values=2, separator="|"),
        ),
        history=(Categorical(name="item"),),
        test_share=0.5,
    )
    rows = logs.read(tmp_path, spec).impressions.collect().sort(ORDER)
    values = vocabulary(["x", "y", "z"])
    for name in ("list", "text"):
        np.testing.assert_array_equal(
            encode_column(values, rows[name], 2), online(values, "", lists, several=True), name
        )


@pytest.mark.parametrize(
    ("offline", "value"),
    [
        (vocabulary(["a"]), "\ud800"),
        (HashedIds("shop", 50), "\ud800"),
        pytest.param(HashedIds("shop", 50), 10**5000, id="digits"),
        (Buckets(np.zeros(1)), 10**400),
        (Buckets(np.zeros(1)), np.inf),
    ],
)
def test_what_no_log_holds_is_refused(offline, value):
    for raw, several in ((value, False), ([value], True)):
        with pytest.raises(UserError, match=r"shop is .*, expected a"):
            online(offline, "shop", [raw], several)


def test_ids_without_raw_values_are_themselves_or_unknown():
    values = pl.Series([None, 0, 2, 9, 10, -1, 2**40], dtype=pl.Int64)
    np.testing.assert_array_equal(IdentityEncoder(10).encode(values), [0, 0, 2, 9, 1, 1, 1])


@pytest.mark.parametrize(
    ("offline", "values", "several"),
    [
        (vocabulary(["a"]), [{}], False),
        (Buckets(np.zeros(1)), ["x"], False),
        (vocabulary(["a"]), ["a"], True),
    ],
)
def test_values_of_another_kind_are_refused(offline, values, several):
    with pytest.raises(UserError, match="shop is "):
        online(offline, "shop", values, several)
