import filecmp
import os
import pathlib

import numpy as np
import polars as pl
import pytest

from suan_jax.data.preparation import prepare
from suan_jax.data.prepare_store import prepare_store
from suan_jax.data.raw_log import LABEL, ORDER, TEST, TIME, USER
from suan_jax.data.sources import kuairand_pure
from suan_jax.data.store import open_store
from suan_jax.errors import UserError

LOG = (
    "user_id video_id date hourmin time_ms is_click is_like is_follow is_comment is_forward is_hate "
    "long_view play_time_ms duration_ms profile_stay_time comment_stay_time is_profile_enter is_rand tab"
).split()
VIDEO = (
    "video_id author_id video_type upload_dt upload_type visible_status video_duration server_width "
    "server_height music_id music_type tag"
).split()
USERS = (
    "user_id user_active_degree is_lowactive_period is_live_streamer is_video_author follow_user_num "
    "follow_user_num_range fans_user_num fans_user_num_range friend_user_num friend_user_num_range "
    "register_days register_days_range"
).split() + [f"onehot_feat{index}" for index in range(18)]
OUTCOMES = (
    "is_like is_follow is_comment is_forward is_hate long_view play_time_ms profile_stay_time "
    "comment_stay_time is_profile_enter"
).split()
START = 1650812400000


def _write(folder: pathlib.Path, poison: int = 0, before: bool = True) -> None:
    """Files of the official columns: 4 users, 5 videos, two logs."""
    folder.mkdir()
    rows = []
    for index in range(40):
        date = 20220425 + index // 8 if index < 30 else 20220501
        row = dict.fromkeys(LOG, 0) | dict.fromkeys(OUTCOMES, (index * 7 + 1) % 5 * poison)
        row |= {"user_id": index % 4, "video_id": index % 5, "date": date, "hourmin": index % 24 * 100}
        row |= {"time_ms": START + index * 3_600_000, "is_click": index % 3 % 2, "tab": index % 2}
        rows.append(row)
    rows.insert(5, rows[4] | {"is_click": 1 - rows[4]["is_click"]})  # a repeat that differs elsewhere
    pl.DataFrame(rows[:20]).write_csv(folder / "log_standard_4_08_to_4_21_pure.csv")
    pl.DataFrame(rows[20:]).write_csv(folder / "log_standard_4_22_to_5_08_pure.csv")
    tags = ["1", "1,2", None, "3,1,2", "2"]
    videos = [
        dict.fromkeys(VIDEO, 1) | {"video_id": index, "author_id": index // 2, "upload_type": "Web"}
        | {"video_duration": None if index == 2 else 5_000.0 * index, "tag": tags[index]}
        for index in range(5)
    ]  # fmt: skip
    pl.DataFrame(videos).write_csv(folder / "video_features_basic_pure.csv")
    users = [dict.fromkeys(USERS, 0) | {"user_id": index, "onehot_feat4": None} for index in range(4)]
    pl.DataFrame(users).write_csv(folder / "user_features_pure.csv")
    if before:
        # User 0's list ends with his first impression; user 1's with the same video at another time.
        pl.DataFrame(
            {"user_id": [0, 1], "last_time_ms": [START, START - 1], "watch_seq": [[3, 4, 0], [2, 1]]}
        ).write_parquet(folder / "history_before_4_25.parquet")


def test_repeats_and_the_entry_that_is_the_first_impression_are_dropped(tmp_path):
    _write(tmp_path / "raw")
    log = kuairand_pure.read(tmp_path / "raw")
    impressions, events = log.impressions.collect(), log.events.collect()
    assert impressions.height == 40
    assert dict(log.notes)["repeats dropped"] == 1
    fourth = impressions.filter(pl.col(TIME) == START // 1000 + 4 * 3600)
    assert fourth[LABEL].to_list() == [4 % 3 % 2]  # the first of the two stays
    before = events.filter(pl.col(TIME).is_null()).sort(USER, ORDER)
    assert before.select(USER, "video_id").rows() == [(0, 3), (0, 4), (1, 2), (1, 1)]
    assert set(before["action"]) == {"unknown"}


@pytest.mark.smoke
def test_no_outcome_column_reaches_the_store(tmp_path):
    stores = []
    for poison in (0, 1):
        _write(tmp_path / f"raw{poison}", poison)
        stores.append(tmp_path / f"store{poison}")
        prepare(kuairand_pure.read(tmp_path / f"raw{poison}"), stores[-1], "kuairand_pure", min_count=1)
    files = [file.relative_to(stores[0]) for file in stores[0].rglob("*") if file.is_file()]
    assert len(files) > 3
    match, mismatch, errors = filecmp.cmpfiles(*stores, [str(file) for file in files], shallow=False)
    assert not mismatch and not errors and len(match) == len(files)


def test_the_action_is_the_click_of_the_earlier_impression(tmp_path):
    _write(tmp_path / "raw", before=False)
    log = kuairand_pure.read(tmp_path / "raw")
    joined = log.impressions.collect().join(log.events.collect(), on=[USER, TIME, ORDER])
    assert joined.height == 40
    clicked = joined["action"].replace_strict({"click": 1, "no click": 0})
    np.testing.assert_array_equal(clicked, joined[LABEL])


def test_test_period_is_by_date_and_tags_are_lists(tmp_path):
    _write(tmp_path / "raw")
    impressions = kuairand_pure.read(tmp_path / "raw").impressions.collect().sort(ORDER)
    assert impressions[TEST].sum() == 10
    assert impressions.filter(pl.col("video_id") == 3)["tags"][0].to_list() == [3, 1, 2]
    assert impressions.filter(pl.col("video_id") == 3)["tag"][0] == 3
    assert impressions.filter(pl.col("video_id") == 2)["tag"].null_count() == 8


def test_a_missing_file_or_column_is_named(tmp_path):
    _write(tmp_path / "raw")
    users = tmp_path / "raw" / "user_features_pure.csv"
    pl.read_csv(users).drop("onehot_feat7").write_csv(users)
    with pytest.raises(UserError, match=r"user_features_pure.csv: column 'onehot_feat7'"):
        kuairand_pure.read(tmp_path / "raw")
    users.unlink()
    with pytest.raises(UserError, match=r"user_features_pure.csv is missing"):
        kuairand_pure.read(tmp_path / "raw")
    with pytest.raises(UserError, match="log_standard"):
        kuairand_pure.read(tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("log_standard_4_22_to_5_08_pure.csv", ",1650", ",x1650", "column 'time_ms', row 1 holds 'x1650"),
        ("log_standard_4_22_to_5_08_pure.csv", "\n3,", "\n,", "column 'user_id', row 1 holds None"),
        ("log_standard_4_22_to_5_08_pure.csv", "\n3,", '\n"3,', "row 1 has a quote that is not closed"),
        ("video_features_basic_pure.csv", '"3,1,2"', '"3,one,2"', "column 'tag', row 4 holds '3,one,2'"),
        ("video_features_basic_pure.csv", '"3,1,2"', "3,1,2", "row 4 has 14 fields, expected 12"),
        ("video_features_basic_pure.csv", "Web", "W\xff", "row 1 is not text in UTF-8"),
        ("user_features_pure.csv", "\n0,0,", "\n0,", "row 1 has 30 fields, expected 31"),
    ],
)  # fmt: skip
def test_a_broken_row_is_named(tmp_path, file, old, new, message):
    _write(tmp_path / "raw")
    path = tmp_path / "raw" / file
    text = path.read_text()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode("latin-1"))
    with pytest.raises(UserError, match=f"{file}: {message}"):
        kuairand_pure.read(tmp_path / "raw")


@pytest.mark.parametrize("content", ["", "user_id\n"])
def test_an_empty_file_is_named(tmp_path, content):
    _write(tmp_path / "raw")
    (tmp_path / "raw" / "user_features_pure.csv").write_text(content)
    with pytest.raises(UserError, match=r"user_features_pure.csv is empty"):
        kuairand_pure.read(tmp_path / "raw")


@pytest.mark.parametrize("left", [0.0, 0.3])
def test_a_damaged_history_ends_preparation_with_one_sentence(tmp_path, left):
    _write(tmp_path / "raw")
    path = tmp_path / "raw" / "history_before_4_25.parquet"
    whole = path.read_bytes()
    half = int(left * len(whole))
    path.write_bytes(whole[:half] if not half else whole[:8] + b"\xff" * (half - 8) + whole[half:])
    with pytest.raises(UserError, match=r"a Parquet file of --raw=.*raw is damaged"):
        prepare_store("kuairand_pure", str(tmp_path / "raw"), str(tmp_path / "store"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw"]


def test_the_partial_log_of_the_results(tmp_path):
    if "SUAN_DATA" not in os.environ:
        pytest.skip("SUAN_DATA is not set: the folder that holds kuairand_pure")
    raw = pathlib.Path(os.environ["SUAN_DATA"]) / "kuairand_pure"
    log = kuairand_pure.read(raw)
    summary = prepare(log, tmp_path / "store", "kuairand_pure")
    assert summary.impressions == 222_444 and summary.users == 25_156
    assert summary.splits["test"].impressions == 130_639
    assert summary.splits["train"].impressions + summary.splits["validation"].impressions == 91_805
    assert summary.splits["validation"].impressions == 9_180
    assert log.notes["entries before the log that are its first impression, dropped"] == 3
    store = open_store(tmp_path / "store")
    visible = np.concatenate([store.impressions(index).visible for index in range(store.num_blocks)])
    assert np.minimum(visible, 50).mean() == pytest.approx(40.25, abs=0.01)
