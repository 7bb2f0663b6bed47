import numpy as np
import polars as pl
import pytest

from suan_jax.data.preparation import prepare
from suan_jax.data.raw_log import (
    HISTORY_TIME,
    LABEL,
    ORDER,
    TEST,
    TIME,
    USER,
    VALIDATION,
    RawLog,
    history_column,
)
from suan_jax.data.selection import Examples, Selection
from suan_jax.data.store import open_store
from suan_jax.errors import UserError
from suan_jax.schema import Feature, Schema
from tests.data.sources.examples import examples

SCHEMA = Schema(
    tables={},
    history=(Feature("item", "item"), Feature("kind", "kind")),
    candidate=(Feature("item", "item"),),
    profile=(Feature("age", "age"),),
    item="item",
)
USERS, ROWS = 7, 400


def _raw(kind: str, seed: int = 0) -> RawLog:
    """Rows with histories that grow ("prefix"), slide ("window") or slide and have times ("timed")."""
    random = np.random.default_rng(seed)
    life = random.integers(0, 9, (USERS, 60)).tolist()
    rows = {name: [] for name in ("user", "age", "item", "past", "kinds", "then", "now", "label")}
    for _ in range(ROWS):
        user, end = int(random.integers(USERS)), int(random.integers(60))
        start = 0 if kind == "prefix" else max(0, end - (5 if kind == "window" else random.integers(2, 5)))
        order = range(start, end) if kind != "timed" else range(start, end)[::-1]  # times tell the order
        past = [life[user][index] for index in order]
        now = 10_000 + 100 * end + int(random.integers(-250, 100)) if kind == "timed" else 0
        rows["user"].append(user)
        rows["age"].append(user * 2 + int(end > 40))  # a profile that changes once
        rows["item"].append(int(random.integers(9)))
        rows["past"].append(past)
        rows["kinds"].append([None if value == 4 else f"kind {value % 3}" for value in past])
        rows["then"].append([10_000 + 100 * index for index in order])
        rows["now"].append(now)
        rows["label"].append(int(random.integers(2)))
    frame = pl.DataFrame(
        {
            USER: rows["user"], TIME: rows["now"], ORDER: np.arange(ROWS), LABEL: rows["label"],
            TEST: np.arange(ROWS) % 5 == 0, VALIDATION: np.arange(ROWS) % 5 == 1, "item": rows["item"],
            "age": rows["age"],
        }
    )  # fmt: skip
    lists = {
        history_column("item"): pl.Series(rows["past"], dtype=pl.List(pl.Int64)),
        history_column("kind"): pl.Series(rows["kinds"], dtype=pl.List(pl.String)),
    }
    if kind == "timed":
        lists[HISTORY_TIME] = pl.Series(rows["then"], dtype=pl.List(pl.Int64))
    return RawLog(frame.with_columns(**lists).lazy(), None, SCHEMA)


def _expected(raw: RawLog) -> list:
    found = []
    for row in raw.impressions.collect().iter_rows(named=True):
        past = zip(row[history_column("item")], row[history_column("kind")], strict=True)
        past = [(str(item), kind, None) for item, kind in past]
        if HISTORY_TIME in row:
            ages = [row[TIME] - then for then in row[HISTORY_TIME]]
            past = [(*event[:2], age) for event, age in zip(past, ages, strict=True) if age > 0][::-1]
        split = "test" if row[TEST] else "validation" if row[VALIDATION] else "train"
        features = (str(row["item"]), str(row["age"]))
        found.append((str(row[USER]), split, row[TIME], row[LABEL], features, tuple(past)))
    return sorted(found, key=str)


@pytest.mark.parametrize("kind", [pytest.param("prefix", marks=pytest.mark.smoke), "window", "timed"])
def test_every_impression_reads_back_with_its_own_history(tmp_path, kind):
    raw = _raw(kind)
    prepare(raw, tmp_path / "store", "test", min_count=1)
    got = [
        (e.user, e.split, e.time, e.label, (e.features["item"], e.features["age"]), e.history)
        for e in examples(open_store(tmp_path / "store"))
    ]
    assert sorted(got, key=str) == _expected(raw)


def test_histories_that_continue_each_other_are_stored_once(tmp_path):
    raw = _raw("prefix")
    summary = prepare(raw, tmp_path / "store", "test", min_count=1)
    assert summary.users == USERS
    assert summary.sequences == 2 * USERS  # one per profile
    longest = raw.impressions.group_by("age").agg(pl.col(history_column("item")).list.len().max())
    assert summary.events == longest.collect()[history_column("item")].sum()


def test_windows_are_shared_where_they_are_equal(tmp_path):
    raw = _raw("window")
    summary = prepare(raw, tmp_path / "store", "test", min_count=1)
    columns = [USER, "age", history_column("item"), history_column("kind")]
    distinct = raw.impressions.select(columns).collect().unique()
    assert USERS < summary.sequences <= distinct.height


def test_partitions_change_nothing(tmp_path, monkeypatch):
    prepare(_raw("timed"), tmp_path / "one", "test")
    monkeypatch.setattr("suan_jax.data.preparation.ROWS_PER_PARTITION", 300)
    monkeypatch.setattr("suan_jax.data.preparation.ROWS_BUFFERED", 100)
    prepare(_raw("timed"), tmp_path / "many", "test")
    stores = [open_store(tmp_path / name) for name in ("one", "many")]
    assert stores[0].statistics == stores[1].statistics
    assert sorted(map(str, examples(stores[0]))) == sorted(map(str, examples(stores[1])))


def test_vocabularies_count_the_train_rows_alone(tmp_path):
    new = {history_column("item"): [77], history_column("kind"): ["new"]}
    rows = _raw("window").impressions.with_columns(
        pl.when(pl.col(TEST)).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
        for name, value in new.items()
    )
    prepare(RawLog(rows, None, SCHEMA), tmp_path / "store", "test", min_count=1)
    store = open_store(tmp_path / "store")
    assert "77" not in store.vocabulary("item")["raw"] and "new" not in store.vocabulary("kind")["raw"]
    counts = dict(store.vocabulary("item").select("raw", "count").iter_rows())
    train = rows.filter(~pl.col(TEST)).collect()
    assert counts["3"] == train[history_column("item")].explode().eq(3).sum() + train["item"].eq(3).sum()


def test_negatives_of_one_user_do_not_share_a_fate(tmp_path):
    raw = _raw("window")
    rows = raw.impressions.with_columns(pl.lit(0, pl.UInt8).alias(LABEL), pl.lit(1).alias(USER))
    prepare(RawLog(rows, None, SCHEMA), tmp_path / "store", "test", min_count=1)
    store = open_store(tmp_path / "store")
    kept = Examples(store, Selection(("train",), negative_rate=0.5)).total
    assert 0.4 * ROWS * 0.6 < kept < 0.6 * ROWS * 0.6


def test_an_empty_split_is_named(tmp_path):
    raw = _raw("window")
    rows = raw.impressions.with_columns((~pl.col(TEST)).alias(VALIDATION))
    with pytest.raises(UserError, match="train split is empty"):
        prepare(RawLog(rows, None, SCHEMA), tmp_path / "store", "test")
