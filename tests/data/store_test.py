import dataclasses
import json
import pickle
import subprocess
import sys
from concurrent import futures

import numpy as np
import polars as pl
import pytest

from suan_jax.data import Block, StoreWriter, open_store
from suan_jax.data.encoding import decode, encode
from suan_jax.errors import UserError
from tests.data.random_log import RandomLog, random_log


def write(path, log: RandomLog, **kwargs):
    with StoreWriter(path, log.schema, source="random", **kwargs) as writer:
        for block in log.blocks:
            writer.write(block)
    return path


def arrays(block: Block):
    """Path to array, over all columns."""
    for field in dataclasses.fields(block):
        value = getattr(block, field.name)
        if isinstance(value, dict):
            yield from ((f"{field.name}/{name}", array) for name, array in value.items())
        else:
            yield field.name, value


def assert_same(got: Block, expected: Block):
    got, expected = dict(arrays(got)), dict(arrays(expected))
    assert got.keys() == expected.keys()
    for name, array in got.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def changed_first(array: np.ndarray, value) -> np.ndarray:
    array = array.copy()
    array.reshape(-1)[0] = value
    return array


@pytest.mark.smoke
@pytest.mark.parametrize("shard_bytes", [1, 4000, 1 << 20])
def test_blocks_come_back_as_written(tmp_path, shard_bytes):
    log = random_log(3)
    store = open_store(write(tmp_path / "store", log, shard_bytes=shard_bytes))
    assert store.schema == log.schema
    assert store.num_blocks == log.num_blocks
    for index in reversed(range(log.num_blocks)):
        block = store.block(index)
        assert_same(block, log.block(index))
        assert block.time.dtype == block.visible.dtype == np.int64
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(store.counts(split), log.counts(split))
    shards = sorted(path.name for path in (tmp_path / "store").glob("shard-*"))
    assert len(shards) == log.num_blocks if shard_bytes == 1 else len(shards) < log.num_blocks
    assert shards[0] == f"shard-00000-of-{len(shards):05d}.array_record"


def test_impressions_come_without_events(tmp_path):
    log = random_log(1)
    store = open_store(write(tmp_path / "store", log))
    scanned, block = store.impressions(2), log.block(2)
    np.testing.assert_array_equal(scanned.time, block.time)
    np.testing.assert_array_equal(scanned.visible, block.visible)
    np.testing.assert_array_equal(scanned.truth["unlimited"], block.truth["unlimited"])
    assert len(scanned.event_time) == 0 and not scanned.event
    assert scanned.event_offsets.tolist() == [0] * (len(block.user) + 1)


@pytest.mark.parametrize(
    "column",
    [
        np.zeros(0, np.int64),
        np.array([np.iinfo(np.int64).min, 0, np.iinfo(np.int64).max]),
        np.array([-7, -5]),
        np.array([[1.5, np.pi], [0.0, -1e30]], np.float32),
        np.array([True, False, True]),
        np.zeros((0, 3), np.float32),
        np.array([65_535, 0], np.uint16),
    ],
)
def test_columns_of_any_kind_come_back(column):
    columns = decode(encode({"first": np.arange(3, dtype=np.uint8), "column": column}))
    np.testing.assert_array_equal(columns["column"], column)
    assert columns["column"].dtype == column.dtype
    assert columns["column"].shape == column.shape


def test_times_take_no_more_bytes_than_their_span_needs():
    times = 1_600_000_000 + np.arange(1000)
    assert len(encode({"time": times})) < 2 * 1000 + 200


def test_statistics_describe_the_log(tmp_path):
    log = random_log(5)
    store = open_store(write(tmp_path / "store", log, extra={"minimum_count": 2}))
    assert store.extra == {"minimum_count": 2}
    assert store.statistics["events"] == sum(len(block.event_time) for block in log.blocks)
    assert store.statistics["sequences"] == sum(len(block.user) for block in log.blocks)
    for index, split in enumerate(("train", "validation", "test")):
        times = np.concatenate([block.time[block.split == index] for block in log.blocks])
        labels = np.concatenate([block.label[block.split == index] for block in log.blocks])
        got = store.statistics[split]
        assert got["impressions"] == len(times)
        assert got["clicks"] == labels.sum()
        assert got["click_rate"] == pytest.approx(labels.mean())
        assert (got["first_time"], got["last_time"]) == (times.min(), times.max())
    for (first, last), block in zip(store.ranks, log.blocks, strict=True):
        assert (first, last) == (block.rank[0], block.rank[-1])


def test_vocabularies_and_users_come_back(tmp_path):
    words = pl.DataFrame({"raw": ["a", "b"], "id": [2, 3], "count": [9, 4]})
    users = pl.DataFrame({"index": [0, 1], "raw": ["u", "v"]})
    users.write_parquet(tmp_path / "users.parquet")
    path = tmp_path / "store"
    write(path, random_log(), vocabularies={"item": words}, users=tmp_path / "users.parquet")
    assert open_store(path).vocabularies == {"item"}
    assert open_store(path).vocabulary("item").equals(words)
    assert open_store(path).raw_users().equals(users)
    with pytest.raises(UserError, match="no vocabulary 'shop'"):
        open_store(path).vocabulary("shop")
    file = path / "vocabulary" / "item.parquet"
    data = bytearray(file.read_bytes())
    data[10] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"item\.parquet is altered"):
        open_store(path).vocabulary("item")


def test_a_store_without_users_says_so(tmp_path):
    with pytest.raises(UserError, match=r"no users\.parquet"):
        open_store(write(tmp_path / "store", random_log())).raw_users()


def test_a_store_is_pickled_and_read_by_threads(tmp_path):
    log = random_log(2, blocks=20)
    store = open_store(write(tmp_path / "store", log, shard_bytes=3000))
    store.block(0)
    copy = pickle.loads(pickle.dumps(store))
    with futures.ThreadPoolExecutor(4) as pool:
        for index, block in enumerate(pool.map(copy.block, [*range(20)] * 3)):
            assert_same(block, log.block(index % 20))


@pytest.mark.smoke
def test_a_writer_that_raises_leaves_nothing(tmp_path):
    log = random_log()
    with pytest.raises(ZeroDivisionError), StoreWriter(tmp_path / "s", log.schema, source="r") as writer:
        writer.write(log.block(0))
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="no block"), StoreWriter(tmp_path / "s", log.schema, source="r"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_never_overwritten(tmp_path):
    path = write(tmp_path / "store", random_log())
    before = (path / "checksums.json").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        write(path, random_log(9))
    assert (path / "checksums.json").read_bytes() == before


def test_ranks_must_ascend_over_blocks(tmp_path):
    log = random_log()
    with pytest.raises(UserError, match="block 1 of r: expected ranks from"):
        with StoreWriter(tmp_path / "s", log.schema, source="r") as writer:
            writer.write(log.block(1))
            writer.write(log.block(0))


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        (
            "candidate",
            lambda ids: {**ids, "shop": changed_first(ids["shop"], 15)},
            "the id 15, expected 0 to 14",
        ),
        ("event", lambda ids: {**ids, "tags": changed_first(ids["tags"], -1)}, "the id -1"),
        ("context", lambda ids: {}, r"context has the features \[\], expected \['tab'\]"),
        ("label", lambda label: changed_first(label, 2), "labels of 0 or 1"),
        ("split", lambda split: changed_first(split, 3), "splits below 3"),
        ("dense", lambda dense: changed_first(dense, np.nan), "finite"),
        ("dense", lambda dense: dense[:, :1], "2 dense columns"),
        ("event_offsets", lambda offsets: offsets[:-1], "event_offsets"),
        ("rank", lambda rank: rank[::-1], "ascending"),
        ("time", lambda time: changed_first(time, 2**40), "time order"),
        ("time", lambda time: time - 10**6, "strictly before"),
        ("visible", lambda visible: visible + 100, "visible from 0"),
    ],
)
def test_a_block_that_breaks_a_promise_is_refused(tmp_path, column, change, message):
    log = random_log(8, sequences=9)
    block = next(b for b in log.blocks if b.impression_offsets[1] > 1 and b.visible[:1] > 0)
    broken = dataclasses.replace(block, **{column: change(getattr(block, column))})
    with (
        pytest.raises(UserError, match=message),
        StoreWriter(tmp_path / "s", log.schema, source="r") as writer,
    ):
        writer.write(broken)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_store_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"no store at .*absent: write one with python launch/prepare\.py"):
        open_store(tmp_path / "absent")
    with pytest.raises(UserError, match=r"is not a store: it has no schema\.json"):
        open_store(tmp_path)
    (tmp_path / "schema.json").write_text("{}")
    with pytest.raises(UserError, match="is not a store"):
        open_store(tmp_path)
    (tmp_path / "schema.json").write_text("{")
    with pytest.raises(UserError, match=r"schema\.json is not valid JSON"):
        open_store(tmp_path)


@pytest.mark.parametrize("old", ['"bytes"', '"files"', '"records"'])
def test_checksums_of_another_form_are_refused(tmp_path, old):
    path = write(tmp_path / "store", random_log(0))
    text = (path / "checksums.json").read_text()
    assert old in text
    (path / "checksums.json").write_text(text.replace(old, '"other"'))
    with pytest.raises(UserError, match=r"store.*checksums\.json.* prepare the store again"):
        open_store(path).block(0)


def test_another_version_is_refused(tmp_path):
    path = write(tmp_path / "store", random_log())
    description = json.loads((path / "schema.json").read_text())
    (path / "schema.json").write_text(json.dumps({**description, "version": 7}))
    with pytest.raises(UserError, match="format version 7, expected 1"):
        open_store(path)


@pytest.mark.parametrize(
    "name", ["schema.json", "vocabulary/item.parquet", "shard-00000-of-00002.array_record"]
)
def test_a_missing_or_truncated_file_is_named(tmp_path, name):
    words = pl.DataFrame({"raw": ["a"], "id": [2], "count": [9]})
    path = write(tmp_path / "store", random_log(), vocabularies={"item": words}, shard_bytes=6000)
    data = (path / name).read_bytes()
    if name != "schema.json":
        (path / name).write_bytes(data[:-1])
        with pytest.raises(UserError, match=f"{name} is truncated"):
            open_store(path)
    (path / name).unlink()
    with pytest.raises(UserError, match=name):
        open_store(path)
    (path / name).write_bytes(data)
    open_store(path)


@pytest.mark.parametrize(("old", "new"), [('"clicks": ', '"clicks":9'), ('"shards"', '"shardz"')])
def test_an_altered_schema_is_refused(tmp_path, old, new):
    path = write(tmp_path / "store", random_log())
    text = (path / "schema.json").read_text()
    assert old in text
    (path / "schema.json").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=r"schema\.json is altered"):
        open_store(path)


@pytest.mark.smoke
def test_an_altered_byte_never_passes(tmp_path):
    log = random_log(4)
    path = write(tmp_path / "store", log)
    (shard,) = path.glob("shard-*")
    data = shard.read_bytes()
    caught = 0
    used = np.flatnonzero(np.frombuffer(data, np.uint8))  # the rest pads the file to 64 KiB
    for position in np.random.default_rng(0).choice(used, 60).tolist():
        altered = bytearray(data)
        altered[position] ^= 0x10
        shard.write_bytes(altered)
        store = open_store(path)
        try:
            for index in range(log.num_blocks):
                assert_same(store.block(index), log.block(index))  # a byte that nothing reads
        except UserError as error:
            assert shard.name in str(error)
            caught += 1
    assert caught > 50


def test_the_shard_of_another_store_is_refused(tmp_path):
    log = random_log(4)
    path, other = write(tmp_path / "store", log), write(tmp_path / "other", random_log(5))
    (shard,) = path.glob("shard-*")
    shard.write_bytes((other / shard.name).read_bytes())  # a sound file, and of the same size
    with pytest.raises(UserError, match=f"{shard.name}: record 0 is altered"):
        open_store(path).block(0)


def test_an_id_beyond_its_vocabulary_is_caught_on_reading(tmp_path):
    path = write(tmp_path / "store", random_log())
    store = open_store(path)
    store.schema.tables["item"] = 10
    with pytest.raises(UserError, match=r"array_record: block .* feature 'item' has the id"):
        for index in range(store.num_blocks):
            store.block(index)


def test_training_imports_no_polars():
    code = "import sys, suan_jax.data; sys.exit('polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
