import dataclasses
import itertools

import numpy as np
import pytest

from suan_jax.config import DataConfig
from suan_jax.data import Selection, num_examples, open_store, train_selection
from suan_jax.data.selection import Examples
from suan_jax.errors import UserError
from tests.data.random_log import RandomLog, random_log
from tests.data.store_test import write

FRACTIONS = (0.05, 0.2, 0.5, 0.9, 1.0)


def chosen(log, selection: Selection) -> set[tuple[int, int]]:
    """(block, row) of every impression that the selection keeps."""
    examples = Examples(log, selection)
    found = [(i, row) for i in range(log.num_blocks) for row in examples.rows(i, log.block(i)).tolist()]
    counts = np.bincount([i for i, _ in found], minlength=log.num_blocks)
    np.testing.assert_array_equal(examples.counts, counts)
    assert examples.total == len(found)
    return set(found)


def impressions(log: RandomLog, *splits: int) -> dict[tuple[int, int], dict]:
    return {
        (i, row): {"rank": block.rank[s], "time": block.time[row], "label": block.label[row]}
        for i, block in enumerate(log.blocks)
        for s in range(len(block.user))
        for row in range(*block.impression_offsets[s : s + 2])
        if block.split[row] in splits
    }


@pytest.fixture(params=["memory", "store"])
def logs(request, tmp_path):
    log = random_log(6, blocks=12)
    return log, log if request.param == "memory" else open_store(write(tmp_path / "store", log))


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_a_share_of_users_is_those_of_low_rank(logs, fraction):
    log, read = logs
    expected = {key for key, value in impressions(log, 0).items() if value["rank"] < fraction}
    if not expected:
        with pytest.raises(UserError, match="expected at least one"):
            Examples(read, Selection(("train",), fraction))
    else:
        assert chosen(read, Selection(("train",), fraction)) == expected


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_a_share_by_time_is_the_latest_and_exact(logs, fraction):
    log, read = logs
    train = impressions(log, 0)
    got = chosen(read, Selection(("train",), fraction, "time"))
    assert len(got) == round(fraction * len(train))
    latest_left_out = max((value["time"] for key, value in train.items() if key not in got), default=0)
    assert latest_left_out <= min(train[key]["time"] for key in got)


@pytest.mark.smoke
@pytest.mark.parametrize("by", ["user", "time"])
@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_fractions_are_nested(by, rate):
    log = random_log(7, blocks=20)
    nested = [chosen(log, Selection(("train",), fraction, by, rate)) for fraction in (0.2, 0.4, 0.7, 1.0)]
    for smaller, larger in itertools.pairwise(nested):
        assert smaller < larger


@pytest.mark.parametrize("by", ["user", "time"])
def test_the_test_split_stays_whole(by):
    log = random_log(8, blocks=12)
    both = chosen(log, Selection(("train", "test"), 0.3, by, 0.5))
    assert both >= impressions(log, 2).keys()
    assert both - impressions(log, 2).keys() == chosen(log, Selection(("train",), 0.3, by, 0.5))


def test_every_click_and_a_share_of_the_rest_is_kept():
    log = random_log(9, blocks=200)
    train = impressions(log, 0)
    negatives = {key for key, value in train.items() if not value["label"]}
    kept = {rate: chosen(log, Selection(("train",), negative_rate=rate)) for rate in (0.1, 0.3, 0.7)}
    for rate, got in kept.items():
        assert got >= train.keys() - negatives
        deviation = np.sqrt(rate * (1 - rate) / len(negatives))
        assert len(got & negatives) / len(negatives) == pytest.approx(rate, abs=4 * deviation)
    assert kept[0.1] < kept[0.3] < kept[0.7]


def test_train_settings_choose_splits_and_shares():
    log = random_log(2)
    data = DataConfig(train_on="train+validation", train_fraction=0.5, fraction_by="time", negative_rate=0.9)
    selection = train_selection(data)
    assert selection == Selection(("train", "validation"), 0.5, "time", 0.9)
    assert num_examples(log, train_selection(DataConfig(train_on="train+validation"))) == len(
        impressions(log, 0, 1)
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("train_on", "test"), ("train_fraction", 0.0), ("train_fraction", 1.1), ("fraction_by", "item"),
     ("negative_rate", 0.0), ("negative_rate", 2.0)],
)  # fmt: skip
def test_settings_out_of_range_are_named(field, value):
    with pytest.raises(UserError, match=rf"data\.{field} is "):
        train_selection(DataConfig(**{field: value}))


def test_an_empty_or_unknown_split_is_named(tmp_path):
    log = random_log(2)
    log.blocks = [dataclasses.replace(block, split=block.split * 0) for block in log.blocks]
    store = open_store(write(tmp_path / "store", log))
    with pytest.raises(UserError, match=r"the store at .*store has no test impression"):
        num_examples(store, Selection(("test",)))
    with pytest.raises(UserError, match="no split is named 'tset'"):
        Selection(("tset",))
    with pytest.raises(UserError, match="no split 'tset'"):
        store.counts("tset")
