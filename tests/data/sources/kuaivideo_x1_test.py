import re

import numpy as np
import pytest

from suan_jax.data.preparation import prepare
from suan_jax.data.prepare_store import prepare_store
from suan_jax.data.sources import kuaivideo_x1
from suan_jax.data.store import open_store
from suan_jax.errors import UserError
from suan_jax.training.loop import train
from tests.data.sources.examples import change_row, examples, write_rows
from tests.training.tiny_config import get_config

COLUMNS = "timestamp user_id item_id is_click is_like is_follow pos_items neg_items".split()
USERS, ROWS = 3, 130


def _rows(poison: int = 0) -> list[dict]:
    """130 impressions of each of 3 users, every other one clicked: up to 65 positives and 65 negatives."""
    random = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        past = {0: [], 1: []}
        for index in range(ROWS):
            item, click = int(random.integers(10, 30)), index % 2
            rows.append(
                {
                    "timestamp": 1000 * index + user, "user_id": user, "item_id": item, "is_click": click,
                    "is_like": poison, "is_follow": poison,
                    "pos_items": "^".join(map(str, past[1][:100])),
                    "neg_items": "^".join(map(str, past[0][:100])),
                }
            )  # fmt: skip
            past[click].append(item)
    return rows


def _write(folder, poison: int = 0):
    rows = _rows(poison)
    train, test = (
        [r for r in rows if r["timestamp"] < 100_000],
        [r for r in rows if r["timestamp"] >= 100_000],
    )
    write_rows(folder / "train.csv", COLUMNS, train[::-1])  # out of order
    write_rows(folder / "test.csv", COLUMNS, test)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    made = []
    for poison in (0, 1):
        folder = tmp_path_factory.mktemp("kuaivideo_x1")
        _write(folder / "raw", poison)
        prepare(kuaivideo_x1.read(folder / "raw"), folder / "store", "kuaivideo_x1", min_count=1)
        made.append(open_store(folder / "store"))
    return made


@pytest.mark.smoke
def test_every_row_is_an_example_with_what_was_clicked_before(stores):
    expected = []
    for row in _rows():
        past = [item for item in row["pos_items"].split("^") if item]
        if past and past[-1] == str(row["item_id"]):
            past.pop()
        left = [item for item in row["neg_items"].split("^") if item]
        expected.append((str(row["user_id"]), str(row["item_id"]), row["is_click"], tuple(past), tuple(left)))
    got = [
        (e.user, e.features["item_id"], e.label, tuple(event[0] for event in e.history),
         tuple(e.features["neg_items"]))
        for e in examples(stores[0])
    ]  # fmt: skip
    assert sorted(got) == sorted(expected)


def test_what_else_the_viewer_did_is_not_read(stores):
    assert stores[0].fingerprint == stores[1].fingerprint


def test_validation_is_the_last_tenth_of_train_by_timestamp(stores):
    found = examples(stores[0])
    assert sum(e.split == "test" for e in found) == 30 * USERS
    held_out = [e for e in found if e.split == "validation"]
    assert len(held_out) == 10 * USERS
    assert min(len(e.history) for e in held_out) >= 44  # 45 clicks lie before row 90, one may be dropped


def test_a_store_holds_a_history_once_per_profile(stores):
    assert stores[0].statistics["events"] < sum(len(e.history) for e in examples(stores[0])) / 1.5


def test_a_model_trains_from_the_raw_files(tmp_path):
    _write(tmp_path / "raw")
    prepare_store("kuaivideo_x1", str(tmp_path / "raw"), str(tmp_path / "store"))
    config = get_config(store=str(tmp_path / "store"))
    config.train.steps = 2
    summary = train(config, tmp_path / "run")
    assert summary["steps"] == 2 and 0 < summary["auc"] < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,0,5,1,0,0,1^2,b", "column 'neg_items', row 2 holds 'b', expected integers"),
        ("1,0,5,2,0,0,1,2", "column 'is_click', row 2 holds '2'"),
        ("noon,0,5,1,0,0,1,2", "column 'timestamp', row 2 holds 'noon', expected a number"),
        (",0,5,1,0,0,1,2", "column 'timestamp', row 2 holds None"),
        ("1,0,5,1,0,0,1,2,3", "row 2 has 9 fields, expected 8"),
    ],
)
def test_a_bad_row_is_named(tmp_path, text, message):
    _write(tmp_path)
    change_row(tmp_path / "train.csv", 2, text)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'train.csv'}: {message}")):
        kuaivideo_x1.read(tmp_path)


def test_a_list_longer_than_the_source_cuts_it_is_named(tmp_path):
    _write(tmp_path)
    change_row(tmp_path / "train.csv", 2, "1,0,5,1,0,0," + "^".join(["1"] * 101) + ",2")
    with pytest.raises(UserError, match=r"column 'pos_items', row 2 .* expected at most 100 entries"):
        kuaivideo_x1.read(tmp_path)
