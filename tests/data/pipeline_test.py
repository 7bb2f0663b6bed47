import dataclasses
import itertools
import threading

import jax
import numpy as np
import pytest

from suan_jax.config import DataConfig
from suan_jax.data import evaluation_batches, open_store, train_iterator
from suan_jax.data.block import Block
from suan_jax.data.packing import training_rows
from suan_jax.data.pipeline import Batches
from suan_jax.errors import UserError
from tests.data.random_log import RandomLog, random_log
from tests.data.store_test import write

DATA = DataConfig(max_len=6, window=3)
PACKED = [
    DATA,
    dataclasses.replace(DATA, packing="request", candidates=2),
    dataclasses.replace(DATA, packing="time", candidates=4),
]

each_packing = pytest.mark.parametrize("data", PACKED, ids=lambda data: data.packing)


def numbered(log: RandomLog) -> RandomLog:
    """The log with every impression numbered, from 1, in its first dense column."""
    start, blocks = 1, []
    for block in log.blocks:
        dense = block.dense.copy()
        dense[:, 0] = np.arange(start, start + len(dense))
        start += len(dense)
        blocks.append(dataclasses.replace(block, dense=dense))
    return RandomLog(log.schema, blocks)


def numbers(log: RandomLog, split: int) -> list[int]:
    return [int(n) for block in log.blocks for n in block.dense[block.split == split, 0]]


def seen(batch) -> list[int]:
    return batch.dense[batch.candidate_mask][:, 0].astype(int).tolist()


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def source(log, batch_size: int, seed: int | None = 0, data: DataConfig = DATA, **shard) -> Batches:
    """Batches of so many rows."""
    return Batches(training_rows(log, data), batch_size, data, seed, **shard)


@pytest.fixture(scope="module")
def log() -> RandomLog:
    return numbered(random_log(11, blocks=13))


@pytest.mark.smoke
@pytest.mark.parametrize("window", [1, 3, 100])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 500])
@each_packing
def test_each_epoch_has_each_example_once(log, window, batch_size, data):
    data = dataclasses.replace(data, window=window)
    batches = source(log, batch_size, data=data)
    expected = numbers(log, 0)
    epochs = 3
    steps = -(-epochs * training_rows(log, data).total // batch_size)
    stream = list(itertools.chain.from_iterable(seen(batches[step].batch) for step in range(steps)))
    orders = [stream[e * len(expected) : (e + 1) * len(expected)] for e in range(epochs)]
    for order in orders:
        assert sorted(order) == expected
    assert orders[0] != orders[1] != orders[2] != expected


def test_examples_of_a_window_are_mixed(log):
    order = seen(source(log, len(numbers(log, 0)), data=dataclasses.replace(DATA, window=100))[0].batch)
    steps = np.abs(np.diff(order))
    assert np.median(steps) > 5


def test_a_batch_depends_on_seed_and_step_alone(log):
    one, other = source(log, 8), source(log, 8)
    ahead = [one[step] for step in range(30)]
    for step in (29, 3, 17, 3, 0):
        assert_equal(other[step], ahead[step])
    assert seen(source(log, 8, seed=1)[3].batch) != seen(ahead[3].batch)


@pytest.mark.smoke
@pytest.mark.parametrize("threads", [0, 1, 3])
@each_packing
def test_a_resumed_iterator_goes_on_as_if_never_stopped(log, threads, data):
    data = dataclasses.replace(data, threads=threads, negative_rate=0.8)
    iterator = train_iterator(log, data, 8, seed=5)
    for _ in range(9):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(25)]
    resumed = train_iterator(log, data, 8, seed=5)
    resumed.set_state(state)
    for batch in expected:
        assert_equal(next(resumed), batch)
    iterator.set_state(state)
    assert_equal(next(iterator), expected[0])


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("seed", [0, None])
@each_packing
def test_processes_share_each_batch(log, processes, seed, data):
    whole = source(log, 16, seed, data)
    parts = [source(log, 16, seed, data, shards=(i,), shard_count=processes) for i in range(processes)]
    steps = range(20) if seed is not None else range(len(whole))
    for step in steps:
        joined = jax.tree.map(lambda *x: np.concatenate(x), *[part[step] for part in parts])
        assert_equal(joined, whole[step])


@pytest.mark.parametrize("seed", [0, None])
def test_a_process_may_have_shares_that_lie_apart(log, seed):
    whole = source(log, 16, seed)
    part = source(log, 16, seed, shards=(0, 2, 3), shard_count=4)
    for step in range(20) if seed is not None else range(len(whole)):
        expected = jax.tree.map(lambda x: np.concatenate([x[:4], x[8:]]), whole[step])
        assert_equal(part[step], expected)


def test_a_process_with_no_example_left_gets_pads(log):
    size = 4 * len(numbers(log, 0))
    last = source(log, size, None, shards=(3,), shard_count=4)[0]
    assert not any(leaf.any() for leaf in jax.tree.leaves(last))
    assert last.batch.history_mask.shape == (size // 4, DATA.max_len)


def test_a_batch_must_divide_over_the_processes(log):
    with pytest.raises(UserError, match="batch size is 6"):
        source(log, 6, shard_count=4)


@pytest.mark.parametrize("field", ["max_len", "window"])
def test_settings_below_one_are_named(log, field):
    with pytest.raises(UserError, match=rf"data\.{field} is 0"):
        source(log, 6, data=dataclasses.replace(DATA, **{field: 0}))


def test_a_negative_seed_is_named(log):
    with pytest.raises(UserError, match=r"train\.seed is -1"):
        source(log, 6, seed=-1)


@pytest.mark.smoke
@pytest.mark.parametrize("batch_size", [1, 5, 11, 1000])
@pytest.mark.parametrize("split", ["train", "test"])
def test_evaluation_has_each_example_once_in_order(log, batch_size, split):
    index = ("train", "validation", "test").index(split)
    items = list(evaluation_batches(log, split, batch_size, max_len=6))
    assert list(itertools.chain.from_iterable(seen(item.batch) for item in items)) == numbers(log, index)
    assert all(len(item.batch.label) == batch_size for item in items)
    truth = np.concatenate([item.truth["unlimited"][item.batch.candidate_mask] for item in items])
    expected = np.concatenate([block.truth["unlimited"][block.split == index] for block in log.blocks])
    np.testing.assert_array_equal(truth, expected)
    pads = ~items[-1].batch.candidate_mask[:, 0]
    assert not any(leaf[pads].any() for leaf in jax.tree.leaves(items[-1]))


@each_packing
def test_a_store_feeds_what_the_log_in_memory_feeds(log, tmp_path, data):
    store = open_store(write(tmp_path / "store", log, shard_bytes=5000))
    data = dataclasses.replace(data, train_fraction=0.7, fraction_by="time", negative_rate=0.6, threads=2)
    stored, direct = train_iterator(store, data, 12, seed=2), train_iterator(log, data, 12, seed=2)
    for _ in range(30):
        assert_equal(next(stored), next(direct))


class Miscounting(RandomLog):
    """A log that hands out fewer examples than it counts."""

    def block(self, index: int) -> Block:
        block = super().block(index)
        return dataclasses.replace(block, split=np.full_like(block.split, 2))


def test_a_block_with_fewer_examples_than_counted_is_an_error(log):
    with pytest.raises(UserError, match=r"block .* has 0 examples, expected the"):
        source(Miscounting(log.schema, log.blocks), 8)[0]


class Counting(RandomLog):
    """A log that counts how often it is read."""

    reads = 0

    def block(self, index: int) -> Block:
        self.reads += 1
        return super().block(index)


def test_a_log_of_one_window_is_read_once(log):
    counting = Counting(log.schema, log.blocks)
    batches = source(counting, 10, data=dataclasses.replace(DATA, window=100))
    for step in range(50):
        batches[step]
    assert counting.reads <= log.num_blocks


class Flaky(RandomLog):
    """A log whose first read fails."""

    reads = 0

    def block(self, index: int) -> Block:
        self.reads += 1
        if self.reads == 1:
            raise UserError("the disk is gone")
        return super().block(index)


def test_an_error_is_not_remembered(log):
    batches = source(Flaky(log.schema, log.blocks), 8)
    with pytest.raises(UserError, match="the disk is gone"):
        batches[0]
    assert_equal(batches[0], source(log, 8)[0])


class Announced(RandomLog):
    """A log that tells when so many different blocks have been read."""

    def expect(self, count: int) -> threading.Event:
        self.read, self.count, self.enough = set(), count, threading.Event()
        return self.enough

    def block(self, index: int) -> Block:
        self.read.add(index)
        if len(self.read) >= self.count:
            self.enough.set()
        return super().block(index)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_the_next_window_is_read_before_it_is_asked_for(log, threads):
    log = Announced(log.schema, log.blocks)
    batches = source(log, 4, data=dataclasses.replace(DATA, threads=threads))
    enough = log.expect(2 * DATA.window)
    assert len(batches[0].user) == 4  # of the first window
    assert enough.wait(20 if threads else 0.2) == bool(threads)


class Gone(RandomLog):
    """A log whose every read fails."""

    def block(self, index: int) -> Block:
        raise UserError("the disk is gone")


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_reaches_the_caller(log, threads):
    data = dataclasses.replace(DATA, threads=threads)
    iterator = train_iterator(Gone(log.schema, log.blocks), data, 8, seed=0)
    with pytest.raises(UserError) as caught:
        next(iterator)
    assert str(caught.value) == "the disk is gone"


def test_a_damaged_shard_ends_training_with_its_name(log, tmp_path):
    path = write(tmp_path / "store", log)
    (shard,) = path.glob("shard-*")
    store = open_store(path)
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(UserError, match=shard.name):
        next(train_iterator(store, DATA, 8, seed=0))
