"""KuaiRand-Pure: impressions of short videos on Kuaishou, April and May 2022.

Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos", CIKM 2022,
https://kuairand.com. The standard logs are read; the randomly exposed one is another distribution.

Columns are named one by one: what a viewer did (likes, play time, stay times and so on) is never read,
except `is_click`, the label and, of earlier impressions, the action.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from suan_jax.data.raw_log import LABEL, ORDER, TEST, TIME, USER, RawLog, Table
from suan_jax.data.sources.official_csv import integer, integer_check, label_check
from suan_jax.data.sources.raw_table import Check, RawTable
from suan_jax.errors import UserError
from suan_jax.schema import Feature, Schema

TEST_FROM = 20220501  # first `date` of the test period

LOGS = "log_standard_*.csv"
USERS = "user_features_pure.csv"
VIDEOS = "video_features_basic_pure.csv"
BEFORE = "history_before_4_25.parquet"  # not an official file: what users saw before a log that starts late

_LOG_COLUMNS = ("user_id", "video_id", "date", "hourmin", "time_ms", "is_click", "tab")
_VIDEO_COLUMNS = ("video_id", "author_id", "upload_type", "video_duration", "music_type", "tag")
_PROFILE = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{index}" for index in (0, 1, 2, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17)),
)
_TEXTS = ("user_active_degree", "upload_type", "tag", *(name for name in _PROFILE if name.endswith("_range")))
_NEVER_MISSING = ("user_id", "video_id", "date", "hourmin", "time_ms", "is_click")
_TAGS = 3  # most tags of a video

SCHEMA = Schema(
    tables={},
    history=(
        Feature("video_id", "video_id"),
        Feature("author_id", "author_id"),
        Feature("tag", "tag"),
        Feature("duration", "duration"),
        Feature("action", "action"),
    ),
    candidate=(
        Feature("video_id", "video_id"),
        Feature("author_id", "author_id"),
        Feature("tag", "tag"),
        Feature("duration", "duration"),
        Feature("tags", "tag", values=_TAGS),
        Feature("upload_type", "upload_type"),
        Feature("music_type", "music_type"),
    ),
    profile=tuple(Feature(name, name) for name in ("user_id", *_PROFILE)),
    context=(Feature("tab", "tab"), Feature("hour", "hour")),
    item="video_id",
    category="tag",
    action="action",
)
TABLES = {"duration": Table(buckets=10), "action": Table(min_count=1)}


def read(raw: Path) -> RawLog:
    """The log in a folder of the official files.

    All standard logs of the folder are read, and impressions that repeat on user, video and time count
    once. A user's history is the list in `history_before_4_25.parquet`, where that file is, then all their
    earlier impressions, clicked or not. Impressions are tested on from 1 May on, by `date`.

    Raises:
      UserError: if a file or a column is missing, a file is damaged, or a value is of the wrong kind.
    """
    files = sorted(raw.glob(LOGS))
    if not files:
        raise UserError(f"{raw}: no file {LOGS}, expected the logs of KuaiRand-Pure")
    log = pl.concat([_scan(file, _LOG_COLUMNS) for file in files]).with_row_index(ORDER)
    log = log.with_columns(pl.col(ORDER).cast(pl.Int64))
    # The smallest set of columns that tells repeats; order keys of the first of each.
    first = log.group_by("user_id", "video_id", "time_ms").agg(pl.col(ORDER).min())
    distinct = log.join(first.select(ORDER), on=ORDER, how="semi")
    rows, kept = pl.collect_all([log.select(pl.len()), first.select(pl.len())], engine="streaming")
    notes = {"repeats dropped": rows.item() - kept.item()}

    videos = _scan(raw / VIDEOS, _VIDEO_COLUMNS)
    videos = videos.with_columns(pl.col("tag").str.split(",").alias("tags")).with_columns(
        pl.col("tags").list.first().cast(pl.Int64).alias("tag"),
        pl.col("tags").list.eval(pl.element().cast(pl.Int64)),
        pl.col("video_duration").alias("duration"),
    )
    keys = [pl.col("user_id").alias(USER), (pl.col("time_ms") // 1000).alias(TIME), ORDER, "video_id"]
    impressions = distinct.select(
        *keys,
        pl.col("is_click").cast(pl.UInt8).alias(LABEL),
        (pl.col("date") >= TEST_FROM).alias(TEST),
        "tab",
        (pl.col("hourmin") // 100).alias("hour"),
    ).join(videos.drop("video_duration"), on="video_id", how="left")
    clicked = pl.when(pl.col("is_click") == 1).then(pl.lit("click")).otherwise(pl.lit("no click"))
    events = distinct.select(*keys, clicked.alias("action"))
    if (raw / BEFORE).exists():
        before, dropped = _before(raw / BEFORE, distinct)
        notes["entries before the log that are its first impression, dropped"] = dropped
        events = pl.concat([before.select(events.collect_schema().names()), events])
    events = events.join(videos.select("video_id", "author_id", "tag", "duration"), on="video_id", how="left")
    users = _scan(raw / USERS, ("user_id", *_PROFILE)).with_columns(pl.col("user_id").alias(USER))
    return RawLog(impressions, events, SCHEMA, users, TABLES, notes=notes)


def _before(path: Path, log: pl.LazyFrame) -> tuple[pl.LazyFrame, int]:
    """The events before the log, and how many entries were dropped.

    An entry that closes a user's list and is also that user's first impression, the same video at the same
    `last_time_ms`, would show a model the very impression it scores.
    """
    lists = pl.scan_parquet(path).select("user_id", "last_time_ms", "watch_seq")
    by_time = pl.struct("time_ms", ORDER)
    first = log.group_by("user_id").agg(pl.col("video_id").sort_by(by_time).first(), pl.col("time_ms").min())
    repeated = lists.join(first, on="user_id").filter(
        (pl.col("watch_seq").list.last() == pl.col("video_id"))
        & (pl.col("last_time_ms") == pl.col("time_ms"))
    )
    users = repeated.select("user_id").collect(engine="streaming")["user_id"]
    entries = (
        lists.with_columns(
            pl.int_ranges(pl.col("watch_seq").list.len()).alias(ORDER),
            pl.col("user_id").is_in(users.implode()).alias("repeated"),
            pl.col("watch_seq").list.len().alias("length"),
        )
        .explode("watch_seq", ORDER)
        .filter(~(pl.col("repeated") & (pl.col(ORDER) == pl.col("length") - 1)))
        .drop_nulls("watch_seq")
    )
    return entries.select(
        pl.col("user_id").alias(USER),
        pl.lit(None, pl.Int64).alias(TIME),
        pl.col(ORDER).cast(pl.Int64),
        pl.col("watch_seq").alias("video_id"),
        pl.lit("unknown").alias("action"),
    ), len(users)


def _scan(path: Path, columns: tuple[str, ...]) -> pl.LazyFrame:
    """These columns of a CSV file, checked row by row; no other column is parsed into a value."""
    if not path.exists():
        raise UserError(f"{path} is missing, expected a file of KuaiRand-Pure")
    table = RawTable.open(path.parent, path.name)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise UserError(f"{path}: column {missing[0]!r} is missing, expected a file of KuaiRand-Pure")
    texts = [name for name in columns if name in _TEXTS]
    integers = [name for name in columns if name not in _TEXTS]
    checks = [integer_check(name, missing=name not in _NEVER_MISSING) for name in integers]
    if "is_click" in columns:
        checks.append(label_check("is_click"))
    if "tag" in columns:
        tags = pl.col("tag").str.split(",").list.eval(pl.element().cast(pl.Int64, strict=False).is_null())
        checks.append(Check("tag", tags.list.any(), "integers with commas between them"))
    table.check(checks)
    return table.scan(columns).select(pl.col(texts), *map(integer, integers))
