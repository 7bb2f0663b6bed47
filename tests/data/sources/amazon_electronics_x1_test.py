import re

import pytest

from suan_jax.data.preparation import prepare
from suan_jax.data.sources import amazon_electronics_x1
from suan_jax.data.store import open_store
from suan_jax.errors import UserError
from tests.data.sources.examples import change_row, examples, write_rows

COLUMNS = "label user_id item_id cate_id item_history cate_history".split()
REVIEWS = {1: [4, 7, 2, 9, 3], 2: [5, 2, 8, 6]}


def _row(user: int, item: int, label: int, before: int) -> dict:
    past = REVIEWS[user][:before]
    return {
        "label": label, "user_id": user, "item_id": item, "cate_id": item % 3,
        "item_history": "^".join(map(str, past)), "cate_history": "^".join(str(i % 3) for i in past),
    }  # fmt: skip


def _write(folder):
    """Each review from the second on, and a negative; the last is the test; rows of train.csv shuffled."""
    train, test = [], []
    for user, items in REVIEWS.items():
        for before in range(1, len(items)):
            rows = test if before == len(items) - 1 else train
            rows += [_row(user, items[before], 1, before), _row(user, 9 - user, 0, before)]
    write_rows(folder / "train.csv", COLUMNS, train[::2][::-1] + train[1::2])
    write_rows(folder / "test.csv", COLUMNS, test)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("amazon")
    _write(folder / "raw")
    log = amazon_electronics_x1.read(folder / "raw")
    prepare(log, folder / "store", "amazon_electronics_x1", min_count=1)
    return open_store(folder / "store")


@pytest.mark.smoke
def test_every_row_is_an_example_with_its_own_history(store):
    expected = []
    for user, items in REVIEWS.items():
        for before in range(1, len(items)):
            past = tuple((str(item), str(item % 3), None) for item in items[:before])
            expected += [(str(user), str(items[before]), 1, past), (str(user), str(9 - user), 0, past)]
    # Item 8 is user 1's negative and closes a history of user 1 nowhere; 3 and 6 are only in the test.
    unseen = {"3": "?", "6": "?"}
    expected = [(user, unseen.get(item, item), label, past) for user, item, label, past in expected]
    got = [(e.user, e.features["item_id"], e.label, e.history) for e in examples(store)]
    assert sorted(got) == sorted(expected)


def test_a_user_has_one_history_in_the_store(store):
    assert store.statistics["sequences"] == 2
    assert store.statistics["events"] == sum(len(items) - 1 for items in REVIEWS.values())


def test_the_last_review_of_each_file_is_test_and_validation(store):
    lengths = {}
    for example in examples(store):
        lengths.setdefault((example.user, example.split), set()).add(len(example.history))
    assert lengths == {
        ("1", "train"): {1, 2}, ("1", "validation"): {3}, ("1", "test"): {4},
        ("2", "train"): {1}, ("2", "validation"): {2}, ("2", "test"): {3},
    }  # fmt: skip


def test_the_item_to_be_scored_never_closes_its_own_history(tmp_path):
    _write(tmp_path / "raw")
    with (tmp_path / "raw" / "train.csv").open("a") as file:
        file.write("1,2,8,2,5^2^8,2^2^2\n0,2,8,2,5^2^8,2^2^2\n1,2,5,2,,\n")
    log = amazon_electronics_x1.read(tmp_path / "raw")
    assert log.notes == {"history entries that are the item to be scored, dropped": 2}
    prepare(log, tmp_path / "store", "amazon_electronics_x1", min_count=1)
    found = examples(open_store(tmp_path / "store"))
    assert all(not e.history or e.history[-1][0] != e.features["item_id"] for e in found)
    labels = [e.label for e in found if e.features["item_id"] == "8" and len(e.history) == 2]
    assert sorted(labels)[:1] == [0] and labels.count(1) == 2  # the clicked and the unclicked row alike
    assert [e.history for e in found if e.features["item_id"] == "5"] == [()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,1,7,1,4^x,1^1", "column 'item_history', row 3 holds '4^x', expected integers"),
        ("1,1,7,1,4^7,1", "column 'cate_history', row 3 holds '1', expected as many entries"),
        ("2,1,7,1,4,1", "column 'label', row 3 holds '2'"),
        ("1,1,,1,4,1", "column 'item_id', row 3 holds None, expected an integer"),
        ("1,1,7,1,4", "row 3 has 5 fields, expected 6"),
        (f"1,1,7,1,4^{2**63},1^1", "column 'item_history', row 3 holds '4^9223372036854775808', expected"),
        ("1,1,7,1,4 7,1^1", "column 'item_history', row 3 holds '4 7'"),
    ],
)
def test_a_bad_row_is_named(tmp_path, text, message):
    _write(tmp_path)
    change_row(tmp_path / "train.csv", 3, text)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'train.csv'}: ") + re.escape(message)):
        amazon_electronics_x1.read(tmp_path)


def test_both_files_are_needed(tmp_path):
    _write(tmp_path)
    (tmp_path / "test.csv").unlink()
    with pytest.raises(UserError, match=r"test.csv is missing, expected a file of AmazonElectronics_x1"):
        amazon_electronics_x1.read(tmp_path)
