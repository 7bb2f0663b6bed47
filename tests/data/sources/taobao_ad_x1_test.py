import re

import pytest

from suan_jax.data.preparation import prepare
from suan_jax.data.sources import taobao_ad_x1
from suan_jax.data.store import open_store
from suan_jax.errors import UserError
from tests.data.sources.examples import change_row, examples, write_rows

COLUMNS = (
    "clk btag_his cate_his brand_his userid cms_segid cms_group_id final_gender_code age_level pvalue_level "
    "shopping_level occupation new_user_class_level adgroup_id cate_id campaign_id customer brand price pid "
    "btag"
).split()


def _row(index: int, poison: int = 1) -> dict:
    """User 1 has three behaviours, the first without a brand, whose zero the publisher took out."""
    row = dict.fromkeys(COLUMNS, 3) | {"userid": index % 3, "adgroup_id": 50 + index % 2, "cate_id": 7}
    row |= {"clk": index % 4 // 3, "brand": 20, "price": f"{index}.5", "pid": "430548_1007", "btag": poison}
    row |= {"btag_his": "1^4^1", "cate_his": "7^8^7", "brand_his": "20^21"} if index % 3 == 1 else {}
    return row | ({"btag_his": "", "cate_his": "", "brand_his": ""} if index % 3 == 2 else {})


def _write(folder, poison: int = 1):
    write_rows(folder / "train.csv", COLUMNS, [_row(index, poison) for index in range(20)])
    write_rows(folder / "test.csv", COLUMNS, [_row(index, poison) for index in range(6)])


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    made = []
    for poison in (1, 2):
        folder = tmp_path_factory.mktemp("taobao_ad_x1")
        _write(folder / "raw", poison)
        log = taobao_ad_x1.read(folder / "raw")
        assert log.notes == {"rows whose lists differ in length, aligned from the end": 9}
        prepare(log, folder / "store", "taobao_ad_x1", min_count=1)
        made.append(open_store(folder / "store"))
    return made


@pytest.mark.smoke
def test_lists_are_aligned_from_the_end(stores):
    histories = {(e.user, e.history) for e in examples(stores[0])}
    assert histories == {
        ("0", (("3", "3", "3", None),)),
        ("1", (("7", None, "1", None), ("8", "20", "4", None), ("7", "21", "1", None))),
        ("2", ()),
    }
    assert stores[0].statistics["sequences"] == 3  # equal histories are stored once


def test_the_features_the_label_and_the_splits(stores):
    found = examples(stores[0])
    clicked = [e for e in found if e.label]
    assert len(clicked) == 5 + 1
    assert clicked[0].features["adgroup_id"] == "51" and clicked[0].features["pid"] == "430548_1007"
    assert {e.features["user_id"] == e.user for e in found} == {True}
    # Prices tell rows apart: the last tenth of train.csv is validation.
    splits = [e.split for e in found]
    assert {split: splits.count(split) for split in set(splits)} == {"train": 18, "validation": 2, "test": 6}
    assert {e.user for e in found if e.split == "validation"} == {str(18 % 3), str(19 % 3)}


def test_the_btag_of_the_impression_is_not_read(stores):
    first, second = stores
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("cate_his", "7^^8", "column 'cate_his', row 5 holds '7^^8', expected integers"),
        ("clk", "", "column 'clk', row 5 holds None"),
        ("price", "cheap", "column 'price', row 5 holds 'cheap', expected a number"),
        ("pid", "", "column 'pid', row 5 holds None"),
        ("pid", "a,b", "row 5 has 22 fields, expected 21"),
    ],
)
def test_a_bad_row_is_named(tmp_path, column, value, message):
    _write(tmp_path)
    row = _row(4) | {column: value}
    change_row(tmp_path / "test.csv", 5, ",".join(str(row[name]) for name in COLUMNS))
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'test.csv'}: {message}")):
        taobao_ad_x1.read(tmp_path)
