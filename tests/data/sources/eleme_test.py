import re

import pytest

from suan_jax.data.preparation import prepare
from suan_jax.data.sources import eleme
from suan_jax.data.store import open_store
from suan_jax.errors import UserError
from tests.data.sources.examples import change_row, examples

COLUMNS = (
    "label user_id gender visit_city avg_price is_supervip ctr_30 ord_30 total_amt_30 shop_id item_id "
    "city_id district_id shop_aoi_id shop_geohash_6 shop_geohash_12 brand_id category_1_id "
    "merge_standard_food_id rank_7 rank_30 rank_90 shop_id_list item_id_list category_1_id_list "
    "merge_standard_food_id_list brand_id_list price_list shop_aoi_id_list shop_geohash6_list timediff_list "
    "hours_list time_type_list weekdays_list times hours time_type weekdays geohash12"
).split()
LISTS = COLUMNS[22:34]
START = 1649088000  # 4 April 2022, 16:00 UTC: midnight in Beijing
DAY = 86400


def _row(user: int, time: int, label: int, ages: list[int], ticks: int) -> dict:
    """An impression of dish 5 with entries of these ages in seconds, as dishes 100, 101..."""
    row = dict.fromkeys(COLUMNS, 1) | {"label": label, "user_id": user, "item_id": 5, "times": time}
    row |= {"hours": (time + 8 * 3600) // 3600 % 24, "time_type": "lunch", "weekdays": 2, "avg_price": 31.5}
    row |= {"shop_geohash_6": "wtw3sj", "geohash12": "wtw3sjq6nd41", "gender": "", "rank_7": user}
    for name in LISTS:
        row[name] = ";".join(["3"] * len(ages))
    row["item_id_list"] = ";".join(str(100 + index) for index in range(len(ages)))
    row["timediff_list"] = ";".join(str(age * ticks) for age in ages)
    row["hours_list"] = ";".join(str((time - age + 8 * 3600) // 3600 % 24) for age in ages)
    row["price_list"] = ";".join(["12.5"] * len(ages))
    row["time_type_list"] = ";".join(["dinner"] * len(ages))
    return row


def _write(folder, ticks: int = 1000):
    """Two train days in three files and a test day; no header but where files were joined."""
    folder.mkdir(exist_ok=True)
    files = {
        "D1_0.csv": [(1, 50, 0, [10, 7200, 90000]), (2, 40, 1, [])],
        "D1_1.csv": [(1, 60, 1, [20, 7210, 90010]), (1, 70, 0, [0, 30, -5])],
        "D2_0.csv": [(2, DAY + 40, 1, [600]), *((3, DAY + 2 + n, 0, [999]) for n in range(8))],
        "D8_0.csv": [(1, 7 * DAY, 1, [604740, 600])],
    }
    for name, rows in files.items():
        lines = [
            ",".join(str(_row(user, START + time, label, ages, ticks)[c]) for c in COLUMNS)
            for user, time, label, ages in rows
        ]
        lines[1:1] = [",".join(COLUMNS)] if name == "D2_0.csv" else []
        (folder / name).write_text("\n".join(lines) + "\n")
    (folder / "Dishes_notes.csv").write_text("not a part of the log\n")


@pytest.fixture(scope="module", params=[1000, 1])
def found(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("eleme")
    _write(folder / "raw", request.param)
    prepare(eleme.read(folder / "raw"), folder / "store", "eleme", min_count=1)
    return {(e.user, e.time - START): e for e in examples(open_store(folder / "store"))}


@pytest.mark.smoke
def test_an_impression_sees_its_own_entries_strictly_before_it(found):
    assert len(found) == 14
    events = {key: [(event[0], event[-1]) for event in e.history] for key, e in found.items()}
    assert events["1", 50] == [("102", 90000), ("101", 7200), ("100", 10)]
    assert events["1", 60] == [("102", 90010), ("101", 7210), ("100", 20)]
    assert events["1", 70] == [("101", 30)]  # not the entry of its very second, nor the one after it
    assert events["2", 40] == [] and events["2", DAY + 40] == [("100", 600)]
    assert events["1", 7 * DAY] == [("100", 604740), ("101", 600)]


def test_the_features_of_an_example(found):
    example = found["1", 50]
    assert example.history[0][:3] == ("102", "3", "3") and example.history[0][6] == "3"
    assert example.history[0][8] == "dinner"
    features = example.features
    assert features["item_id"] == "5" and features["shop_geohash_6"] == "wtw3sj"
    assert features["time_type"] == "lunch" and features["geohash12"] == "wtw3sjq6nd41"
    assert features["gender"] is None and features["user_id"] == "1"
    assert features["rank_7"] != found["3", DAY + 2].features["rank_7"]


def test_the_last_day_tests(found):
    assert [key for key, e in found.items() if e.split == "test"] == [("1", 7 * DAY)]
    assert sum(e.split == "validation" for e in found.values()) == 1
    assert {key: e.label for key, e in found.items() if e.label} == {
        ("2", 40): 1, ("1", 60): 1, ("2", DAY + 40): 1, ("1", 7 * DAY): 1
    }  # fmt: skip


def test_equal_histories_are_stored_once(tmp_path):
    _write(tmp_path / "raw")
    prepare(eleme.read(tmp_path / "raw"), tmp_path / "store", "eleme", min_count=1)
    # Rows 50 and 60 of user 1 tell of the same three events.
    assert open_store(tmp_path / "store").statistics["events"] == 3 + 0 + 3 + 1 + 8 + 2


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", "maybe", "column 'label', row 1 holds 'maybe'"),
        ("times", "1649088000000", "column 'times', row 1 .* another time unit"),
        ("timediff_list", "1;2", "column 'timediff_list', row 1 holds '1;2', expected as many entries"),
        ("timediff_list", "1;x;3", "column 'timediff_list', row 1 holds '1;x;3', expected numbers"),
        ("brand_id_list", "", "column 'brand_id_list', row 1 holds None, expected as many entries"),
        ("rank_30", "top", "column 'rank_30', row 1 holds 'top', expected a number"),
        ("geohash12", "a,b", "row 1 has 40 fields, expected 39"),
        ("user_id", "", "column 'user_id', row 1 holds None"),
    ],
)
def test_a_bad_row_is_named(tmp_path, column, value, message):
    _write(tmp_path)
    row = _row(1, START + 60, 1, [20, 7210, 90010], 1000) | {column: value}
    change_row(tmp_path / "D1_1.csv", 0, ",".join(str(row[name]) for name in COLUMNS))
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "D1_1.csv")) + ".*" + message):
        eleme.read(tmp_path)


def test_ages_that_the_hours_contradict_are_refused(tmp_path):
    _write(tmp_path, ticks=7000)
    with pytest.raises(UserError, match=r"'timediff_list' puts only \d+% of the entries"):
        eleme.read(tmp_path)


def test_two_days_are_needed(tmp_path):
    with pytest.raises(UserError, match="holds 0 days"):
        eleme.read(tmp_path)
