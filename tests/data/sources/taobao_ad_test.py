import re

import polars as pl
import pytest

from suan_jax.data.preparation import prepare
from suan_jax.data.sources import taobao_ad
from suan_jax.data.store import open_store
from suan_jax.errors import UserError
from tests.data.sources.examples import change_row, examples, write_rows

LOG = "user time_stamp adgroup_id pid nonclk clk".split()
AD = "adgroup_id cate_id campaign_id customer brand price".split()
USER = (
    "userid cms_segid cms_group_id final_gender_code age_level pvalue_level shopping_level occupation "
    "new_user_class_level"
).split()
PAST = "user time_stamp btag cate brand".split()
TEST_DAY = 1494604800  # 13 May 2017 in Beijing
START = TEST_DAY - 86400


def _write(folder):
    """3 users, 2 ads; the rows of every file out of order."""
    log = [
        (2, START + 500, 11, 0), (1, START + 100, 10, 1), (1, TEST_DAY - 1, 11, 0), (1, TEST_DAY, 10, 1),
        (2, TEST_DAY + 60, 11, 1), (3, START + 300, 10, 0), (1, START + 400, 10, 0), (3, TEST_DAY + 5, 11, 0),
    ]  # fmt: skip
    rows = [
        {"user": u, "time_stamp": t, "adgroup_id": a, "pid": f"430548_100{u}", "nonclk": 1 - c, "clk": c}
        for u, t, a, c in log
    ]
    rows += [rows[-1] | {"user": 4, "time_stamp": START + n} for n in range(5)]
    write_rows(folder / "raw_sample.csv", LOG, [*rows[:4], dict(zip(LOG, LOG, strict=True)), *rows[4:]])
    ads = [(10, 100, 7, 70, 5, "9.9"), (11, 101, 8, 71, "NULL", "250.0")]
    write_rows(folder / "ad_feature.csv", AD, [dict(zip(AD, ad, strict=True)) for ad in ads])
    # The official header ends in a space, and two of the columns have gaps.
    users = [(1, 0, 5, 2, 5, "", 3, 0, 3), (2, 1, 6, 1, 4, 2, 3, 1, "")]
    header = ",".join(USER) + " "
    write_rows(folder / "user_profile.csv", USER, [dict(zip(USER, u, strict=True)) for u in users], header)
    past = [
        (1, START + 400, "buy", 100, 5), (1, START + 50, "ipv", 101, 6), (9, START, "pv", 100, 5),
        (1, START + 99, "cart", 100, 5), (1, START + 100, "pv", 100, 5), (1, TEST_DAY + 9, "pv", 999, 9),
        (2, START + 1, "fav", 101, ""),
    ]  # fmt: skip
    write_rows(folder / "behavior_log.csv", PAST, [dict(zip(PAST, row, strict=True)) for row in past])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taobao_ad")
    _write(folder / "raw")
    prepare(taobao_ad.read(folder / "raw"), folder / "store", "taobao_ad", min_count=1)
    return {(e.user, e.time): e for e in examples(open_store(folder / "store"))}


@pytest.mark.smoke
def test_an_impression_sees_the_behaviours_strictly_before_it(found):
    assert len(found) == 8 + 5
    assert found["1", START + 100].history == (("101", "6", "pv", 50), ("100", "5", "cart", 1))
    # The purchase at the very second of the impression is not before it.
    assert [event[2] for event in found["1", START + 400].history] == ["pv", "cart", "pv"]
    assert [event[2] for event in found["1", TEST_DAY].history] == ["pv", "cart", "pv", "buy"]
    assert found["2", START + 500].history == (("101", None, "fav", 499),)
    assert found["3", START + 300].history == ()


def test_the_features_of_an_example(found):
    features = dict(found["1", START + 100].features)
    assert features.pop("price") != found["1", TEST_DAY - 1].features["price"]
    assert features == {
        "adgroup_id": "10", "cate_id": "100", "campaign_id": "7", "customer": "70", "brand": "5",
        "pid": "430548_1001", "user_id": "1", "cms_segid": "0", "cms_group_id": "5",
        "final_gender_code": "2", "age_level": "5", "pvalue_level": None, "shopping_level": "3",
        "occupation": "0", "new_user_class_level": "3",
    }  # fmt: skip
    assert found["1", TEST_DAY - 1].features["brand"] is None
    assert found["3", START + 300].features["occupation"] is None  # no profile


def test_labels_and_splits_by_the_day_of_beijing(found):
    assert {key: e.label for key, e in found.items() if e.label} == {
        ("1", START + 100): 1, ("1", TEST_DAY): 1, ("2", TEST_DAY + 60): 1
    }  # fmt: skip
    assert {key for key, e in found.items() if e.split == "test"} == {
        ("1", TEST_DAY), ("2", TEST_DAY + 60), ("3", TEST_DAY + 5)
    }  # fmt: skip
    assert [key for key, e in found.items() if e.split == "validation"] == [("1", TEST_DAY - 1)]


@pytest.mark.parametrize(
    ("file", "row", "text", "message"),
    [
        ("raw_sample.csv", 2, "1,x,10,p,1,0", "column 'time_stamp', row 2 holds 'x'"),
        ("raw_sample.csv", 2, "1,1494000000,10,p,1,1", "column 'nonclk', row 2 holds '1', .* opposite"),
        ("raw_sample.csv", 7, "1,1494000000,10,p,1,2", "column 'clk', row 7 holds '2', .* 0 or 1"),
        ("raw_sample.csv", 2, "1,1494000000,10,p,1", "row 2 has 5 fields, expected 6"),
        ("raw_sample.csv", 2, "1,1494000000123,10,p,1,0", "column 'time_stamp', row 2 .* another time unit"),
        ("ad_feature.csv", 2, "10,101,8,71,5,250.0", "column 'adgroup_id', row 2 repeats '10'"),
        ("ad_feature.csv", 2, "12,101,8,71,5,free", "column 'price', row 2 holds 'free', expected a number"),
        ("user_profile.csv", 1, "1,0,5,2,5,,3,,3", "column 'occupation', row 1 holds None"),
        ("behavior_log.csv", 3, "9,1494000000,look,1,1", "column 'btag', row 3 holds 'look', .* pv, ipv"),
        ("behavior_log.csv", 3, "9,1494000000,pv,1,1,1", "row 3 has 6 fields, expected 5"),
    ],
)
def test_a_bad_row_is_named(tmp_path, file, row, text, message):
    _write(tmp_path)
    change_row(tmp_path / file, row, text)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / file)) + ".*" + message):
        taobao_ad.read(tmp_path)


def test_a_missing_file_or_column_is_named(tmp_path):
    _write(tmp_path)
    ads = tmp_path / "ad_feature.csv"
    pl.read_csv(ads).drop("customer").write_csv(ads)
    with pytest.raises(UserError, match=r"ad_feature.csv: column 'customer' is missing"):
        taobao_ad.read(tmp_path)
    ads.unlink()
    with pytest.raises(UserError, match=r"ad_feature.csv is missing, expected a file of Tianchi"):
        taobao_ad.read(tmp_path)
