import dataclasses

import numpy as np
import pytest

from suan_jax.config import DataConfig
from suan_jax.data import train_iterator, train_selection
from suan_jax.data.packing import Packing, pack, training_rows
from suan_jax.data.selection import Examples
from suan_jax.errors import UserError
from tests.data.random_log import random_block, random_log
from tests.random_batch import random_schema

MAX_LEN = 6


def random_impressions(seed: int, users: int = 40):
    """A block whose users have up to five impressions, and an ascending share of its impressions."""
    rng = np.random.default_rng(seed)
    block = random_block(rng, random_schema(), np.arange(users), np.sort(rng.random(users)))
    return block, np.flatnonzero(rng.random(len(block.time)) < 0.8)


def sequences(block) -> np.ndarray:
    return np.repeat(np.arange(len(block.user)), np.diff(block.impression_offsets))


def one_by_one(block, chosen, packing: Packing) -> list[list[int]]:
    """The rows, made impression after impression."""
    rows, sequence = [], sequences(block)

    def joins(row: list[int], impression: int) -> bool:
        first = row[0]
        if len(row) == packing.candidates or sequence[first] != sequence[impression]:
            return False
        if packing.how == "request":
            return (
                block.time[first] == block.time[impression]
                and block.visible[first] == (block.visible[impression])
            )
        if block.visible[row[-1]] > block.visible[impression]:
            return False
        skipped = max(block.visible[impression] - packing.max_len, 0)
        alone = min(block.visible[first], packing.max_len)
        return block.visible[first] - skipped >= packing.least_history * alone

    for impression in chosen.tolist():
        if rows and joins(rows[-1], impression):
            rows[-1].append(impression)
        else:
            rows.append([impression])
    return rows


@pytest.mark.smoke
@pytest.mark.parametrize("candidates", [2, 3, 50])
@pytest.mark.parametrize(
    ("how", "least_history"), [("request", 0.0), ("time", 0.0), ("time", 0.5), ("time", 1.0)]
)
@pytest.mark.parametrize("own_histories", [False, True])
def test_rows_are_filled_impression_after_impression(how, candidates, least_history, own_histories):
    sizes = set()
    for seed in range(5):
        block, chosen = random_impressions(seed)
        if own_histories:  # of any length, whatever the time
            block = dataclasses.replace(block, visible=np.random.default_rng(seed).permutation(block.visible))
        packing = Packing(how, candidates, MAX_LEN, least_history)
        rows = pack(block, chosen, packing)
        assert rows.shape[1] == candidates
        assert [[i for i in row if i >= 0] for row in rows.tolist()] == one_by_one(block, chosen, packing)
        sizes |= set((rows >= 0).sum(axis=1).tolist())
    assert len(sizes) > 1


def test_no_impression_gives_no_row():
    block, _ = random_impressions(0)
    for how in ("none", "request", "time"):
        assert len(pack(block, np.zeros(0, np.int64), Packing(how, 2 if how != "none" else 1, 4))) == 0


def test_a_request_is_of_one_history_too():
    block, _ = random_impressions(0)
    block = dataclasses.replace(block, time=np.zeros_like(block.time))
    rows = pack(block, np.arange(len(block.time)), Packing("request", 5, MAX_LEN))
    assert (rows[:, 1] >= 0).any()
    for row in rows:
        assert len(set(block.visible[row[row >= 0]].tolist())) == 1


@pytest.mark.parametrize(
    "selection",
    [{}, {"train_fraction": 0.4}, {"negative_rate": 0.5}, {"fraction_by": "time", "train_fraction": 0.6}],
)
@pytest.mark.parametrize("how", ["request", "time"])
def test_the_examples_are_those_that_are_chosen_without_packing(how, selection):
    log = random_log(3, blocks=40)
    data = DataConfig(max_len=MAX_LEN, packing=how, candidates=3, **selection)
    examples, rows = Examples(log, train_selection(data)), training_rows(log, data)
    for index, block in enumerate(log.blocks):
        packed = rows.rows(index, block)
        np.testing.assert_array_equal(packed[packed >= 0], examples.rows(index, block))
        assert len(packed) == rows.counts[index]
    assert rows.total == rows.counts.sum() < examples.total


@pytest.mark.parametrize("how", ["request", "time"])
def test_no_candidate_sees_an_event_of_its_own_time_or_later(how):
    log = random_log(4, blocks=30)
    data = DataConfig(max_len=MAX_LEN, packing=how, candidates=4, least_history=0.0)
    batch = next(train_iterator(log, data, 400, seed=0))
    seen = (np.arange(MAX_LEN) < batch.visible[:, :, None]) & batch.candidate_mask[:, :, None]
    seen &= (batch.history_mask & batch.history_timed)[:, None]
    gap = batch.history_age[:, None] - batch.candidate_age[:, :, None]
    assert seen.sum() > 100
    assert (gap[seen] > 0).all()
    assert (batch.candidate_age.max() > 0) == (how == "time")
    assert (np.diff(batch.candidate_age) <= 0)[batch.candidate_mask[:, 1:]].all()


def test_a_slot_without_a_candidate_is_zero():
    log = random_log(5, blocks=10)
    data = DataConfig(max_len=MAX_LEN, packing="time", candidates=5)
    batch = next(train_iterator(log, data, 100, seed=0))
    pads = ~batch.candidate_mask
    assert pads.any() and not pads[:, 0].any()
    columns = [batch.candidate_age, batch.visible, batch.dense, batch.label]
    for column in [*columns, *batch.candidate.values(), *batch.context.values()]:
        assert not column[pads].any()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"packing": "user"}, r"config\.data\.packing is 'user', expected one of 'none', 'request', 'time'"),
        ({"candidates": 4}, r"config\.data\.candidates is 4, expected 1, as config\.data\.packing is 'none'"),
        (
            {"packing": "time"},
            r"config\.data\.candidates is 1, expected at least 2, as config\.data\.packing",
        ),
        ({"least_history": 1.5}, r"config\.data\.least_history is 1\.5, expected a share in \[0, 1\]"),
    ],
)
def test_settings_that_do_not_fit_are_named(fields, sentence):
    with pytest.raises(UserError, match=sentence):
        training_rows(random_log(0), DataConfig(**fields))


def test_a_batch_must_be_whole_rows():
    data = DataConfig(packing="time", candidates=4)
    with pytest.raises(UserError, match=r"the batch size is 10, expected a multiple of data\.candidates, 4"):
        train_iterator(random_log(0), data, 10, seed=0)
