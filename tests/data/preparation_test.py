import filecmp
import pathlib

import numpy as np
import polars as pl
import pytest

from suan_jax.data import blocking, preparation
from suan_jax.data.preparation import prepare
from suan_jax.data.raw_log import LABEL, ORDER, TEST, TIME, USER, RawLog, Table
from suan_jax.data.store import open_store
from suan_jax.data.vocabulary import Buckets, HashedIds, Vocabulary, encode_column, stable_hash, user_rank
from suan_jax.errors import UserError
from suan_jax.schema import OOV, PAD, SPLITS, Feature, Schema

SCHEMA = Schema(
    tables={},
    history=(Feature("item", "item"),),
    candidate=(Feature("item", "item"), Feature("tags", "tag", 2), Feature("shop", "shop")),
    profile=(Feature("age", "age"),),
    context=(Feature("hour", "hour"),),
    dense=("price",),
    item="item",
)
TABLES = {"shop": Table(hash_ids=50), "age": Table(buckets=4)}


def random_raw_log(seed=0, impressions=600, events=900, users=40) -> RawLog:
    random = np.random.default_rng(seed)
    time = random.integers(1_000, 1_200, impressions)  # many ties
    event_time = random.integers(990, 1_200, events)
    known = random.random(events) > 0.1
    items = random.integers(0, 30, impressions)
    return RawLog(
        impressions=pl.LazyFrame(
            {
                USER: random.integers(0, users, impressions),
                TIME: time,
                ORDER: np.arange(impressions),
                LABEL: random.integers(0, 2, impressions),
                TEST: time >= 1_150,
                "item": pl.Series(items).replace({3: None}),
                "tags": [[str(item), None, "x", "y"][: item % 5] for item in items],
                "shop": [f"shop {item}" for item in items],
                "hour": time % 24,
                "price": np.where(items == 5, np.nan, items * 1.5),
            }
        ),
        events=pl.LazyFrame(
            {
                USER: random.integers(0, users + 5, events),
                TIME: [int(t) if k else None for t, k in zip(event_time, known, strict=True)],
                ORDER: np.arange(events),
                "item": random.integers(0, 40, events),
            }
        ),
        users=pl.LazyFrame({USER: np.arange(users), "age": random.integers(10, 80, users)}),
        schema=SCHEMA,
        tables=TABLES,
    )


def _blocks(store):
    return [store.block(index) for index in range(store.num_blocks)]


def same_files(first: pathlib.Path, second: pathlib.Path) -> bool:
    files = sorted(file.relative_to(first) for file in first.rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(second) for file in second.rglob("*") if file.is_file())
    return all(filecmp.cmp(first / file, second / file, shallow=False) for file in files)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "store"
    prepare(random_raw_log(), path, "test")
    return open_store(path)


@pytest.mark.smoke
def test_an_impression_sees_the_events_strictly_before_it(store):
    raw = random_raw_log()
    impressions, events = raw.impressions.collect(), raw.events.collect()
    names = store.raw_users()["raw"].cast(pl.Int64).to_list()
    seen = 0
    for block in _blocks(store):
        for row, user in enumerate(block.user):
            mine = impressions.filter(pl.col(USER) == names[user]).sort(TIME, ORDER)
            past = events.filter(pl.col(USER) == names[user])
            rows = slice(*block.impression_offsets[[row, row + 1]])
            np.testing.assert_array_equal(block.time[rows], mine[TIME])
            np.testing.assert_array_equal(block.label[rows], mine[LABEL])
            before = [past.filter(pl.col(TIME).is_null() | (pl.col(TIME) < t)).height for t in mine[TIME]]
            np.testing.assert_array_equal(block.visible[rows], before)
            timed = block.event_timed[slice(*block.event_offsets[[row, row + 1]])]
            assert (np.diff(timed.astype(int)) >= 0).all()  # unknown times come first
            seen += len(mine)
    assert seen == impressions.height


def test_users_without_an_impression_are_left_out(store):
    raw = random_raw_log()
    users = set(raw.impressions.collect()[USER])
    assert set(store.raw_users()["raw"].cast(pl.Int64)) == users
    kept = raw.events.collect().filter(pl.col(USER).is_in(users)).height
    assert store.statistics["events"] == kept < raw.events.collect().height


def test_rank_orders_users_and_is_a_hash_of_the_raw_id(store):
    rank = np.concatenate([block.rank for block in _blocks(store)])
    assert (np.diff(rank) > 0).all()
    np.testing.assert_array_equal(rank, user_rank(store.raw_users()["raw"]))
    np.testing.assert_array_equal(
        np.concatenate([block.user for block in _blocks(store)]), np.arange(len(rank))
    )


def test_splits_are_by_time_and_validation_is_the_last_share(store):
    blocks = _blocks(store)
    time, split = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("time", "split"))
    train, validation, test = (time[split == index] for index in range(len(SPLITS)))
    assert train.max() < validation.min() <= validation.max() < 1_150 <= test.min()
    before = np.sort(np.concatenate([train, validation]))
    start = len(before) - round(0.1 * len(before))
    assert validation.min() == before[start]


def test_dense_columns_are_standardised_and_missing_is_the_mean(store):
    raw = random_raw_log().impressions.collect().with_columns(pl.col("price").fill_nan(None))
    train = raw.filter(~pl.col(TEST))["price"]
    expected = ((raw["price"] - train.mean()) / train.std(ddof=0)).fill_null(0.0).to_numpy()
    dense = np.concatenate([block.dense[:, 0] for block in _blocks(store)])
    np.testing.assert_allclose(np.sort(dense), np.sort(expected), rtol=1e-5, atol=1e-6)


def test_store_is_the_same_bytes_whatever_the_row_order(tmp_path):
    raw = random_raw_log()
    shuffled = RawLog(
        impressions=raw.impressions.collect().sample(fraction=1.0, shuffle=True, seed=1).lazy(),
        events=raw.events.collect().sample(fraction=1.0, shuffle=True, seed=2).lazy(),
        users=raw.users.collect().reverse().lazy(),
        schema=raw.schema,
        tables=raw.tables,
    )
    prepare(raw, tmp_path / "first", "test")
    prepare(shuffled, tmp_path / "second", "test")
    assert same_files(tmp_path / "first", tmp_path / "second")


def test_partitions_change_nothing_but_where_blocks_end(tmp_path, store, monkeypatch):
    monkeypatch.setattr(preparation, "ROWS_PER_PARTITION", 100)
    prepare(random_raw_log(), tmp_path / "store", "test")
    cut = open_store(tmp_path / "store")
    assert cut.num_blocks > store.num_blocks
    for name in ("user", "rank", "event_time", "event_timed", "time", "label", "split", "visible", "dense"):
        np.testing.assert_array_equal(
            np.concatenate([getattr(block, name) for block in _blocks(cut)]),
            np.concatenate([getattr(block, name) for block in _blocks(store)]),
        )
    for group in ("event", "candidate", "context", "profile"):
        for name in getattr(store.block(0), group):
            np.testing.assert_array_equal(
                np.concatenate([getattr(block, group)[name] for block in _blocks(cut)]),
                np.concatenate([getattr(block, group)[name] for block in _blocks(store)]),
            )


def _tiny(**columns) -> RawLog:
    """Two users: the first trains at 10 and is tested at 100, the second is tested only."""
    return RawLog(
        impressions=pl.LazyFrame(
            {USER: ["a", "a", "b"], TIME: [10, 100, 100], ORDER: [0, 1, 2], LABEL: [1, 0, 1]}
            | {TEST: [False, True, True], "item": ["train", "test", "test"]}
        ),
        events=pl.LazyFrame(
            {USER: ["a", "a", "a", "b"], TIME: [5, 10, None, 1], ORDER: [0, 1, 2, 3]}
            | {"item": ["seen", "unseen", "unknown time", "other user"]},
            schema_overrides={TIME: pl.Int64},
        ),
        schema=Schema(
            {}, history=(Feature("item", "item"),), candidate=(Feature("item", "item"),), item="item"
        ),
        validation=0.0,
    )


@pytest.mark.smoke
def test_vocabulary_holds_only_what_training_reads(tmp_path):
    prepare(_tiny(), tmp_path / "store", "test", min_count=1)
    store = open_store(tmp_path / "store")
    assert set(store.vocabulary("item")["raw"]) == {"train", "seen", "unknown time"}
    ids = np.concatenate([block.candidate["item"] for block in _blocks(store)])
    assert sorted(ids)[:2] == [OOV, OOV]


def test_an_empty_split_and_an_existing_store_are_refused_and_leave_nothing(tmp_path):
    raw = _tiny()
    no_test = RawLog(
        raw.impressions.with_columns(pl.lit(False).alias(TEST)), raw.events, raw.schema, validation=0
    )
    with pytest.raises(UserError, match="test split is empty"):
        prepare(no_test, tmp_path / "store", "test")
    broken = RawLog(
        raw.impressions, raw.events.with_columns(pl.col("item").cast(pl.Int64)), raw.schema, validation=0
    )
    with pytest.raises(pl.exceptions.PolarsError):
        prepare(broken, tmp_path / "store", "test")
    assert not list(tmp_path.iterdir())
    (tmp_path / "store").mkdir()
    with pytest.raises(UserError, match="exists already"):
        prepare(raw, tmp_path / "store", "test")


def test_vocabulary_goes_by_count_then_value():
    counts = pl.DataFrame({"value": ["d", "b", "a", "c"], "count": [1, 3, 3, 9]})
    vocabulary = Vocabulary.build(counts, min_count=2)
    assert vocabulary.frame["value"].to_list() == ["c", "a", "b"]
    ids = vocabulary.encode(pl.Series(["a", None, "c", "d", "never"]))
    np.testing.assert_array_equal(ids, [3, PAD, 2, OOV, OOV])


def test_hash_is_pinned_and_ids_stay_in_range():
    assert stable_hash(pl.Series(["", "7", "é"]), "salt").tolist() == [
        9169679604459992623,
        18440032146003430431,
        8608960449504830307,
    ]
    values = pl.Series(range(1_000))
    np.testing.assert_array_equal(stable_hash(values, "a"), stable_hash(values.cast(pl.String), "a"))
    assert (stable_hash(values, "a") != stable_hash(values, "b")).all()
    rank = user_rank(values)
    assert 0 <= rank.min() and rank.max() < 1 and abs(rank.mean() - 0.5) < 0.05
    ids = HashedIds("a", 10).encode(pl.Series([None, *range(1_000)]))
    assert ids[0] == PAD and set(ids[1:]) == set(range(2, 10))


def test_buckets_hold_equal_shares():
    values = np.random.default_rng(0).lognormal(size=4_000)
    counts = pl.DataFrame({"value": values}).group_by("value").agg(pl.len().alias("count"))
    ids = Buckets.build(counts, 5).encode(pl.Series(values))
    assert np.bincount(ids)[2:].tolist() == [800] * 5
    assert Buckets.build(pl.DataFrame({"value": [1.0], "count": [9]}), 5).size == 3
    np.testing.assert_array_equal(Buckets(np.array([1.0])).encode(pl.Series([None, 0.5, 1.0])), [PAD, 2, 3])


def test_lists_are_cut_and_padded():
    vocabulary = Vocabulary.build(pl.DataFrame({"value": ["a", "b"], "count": [2, 1]}), 1)
    column = pl.Series([["a", "b", "a"], None, [], ["z", None, "b"]], dtype=pl.List(pl.String))
    np.testing.assert_array_equal(encode_column(vocabulary, column, 2), [[2, 3], [0, 0], [0, 0], [OOV, 3]])


def test_cut_keeps_users_whole_and_blocks_small(store):
    whole = store.block(0)
    parts = list(blocking.cut(whole, max_impressions=40, max_events=60))
    assert sum(len(part.user) for part in parts) == len(whole.user)
    for part in parts:
        assert len(part.user) == 1 or (len(part.time) <= 40 and len(part.event_time) <= 60)
        assert part.event_offsets[0] == part.impression_offsets[0] == 0
        assert part.event_offsets[-1] == len(part.event_time)
    np.testing.assert_array_equal(np.concatenate([part.visible for part in parts]), whole.visible)
