import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")

from suan_jax.data import beam_preparation, preparation
from suan_jax.data.beam_preparation import prepare_on_beam
from suan_jax.data.preparation import prepare
from suan_jax.data.raw_log import TEST, RawLog
from suan_jax.data.sources import logs
from suan_jax.data.sources.log_spec import Bucketed, Categorical, Events, Keyed, LogSpec, MultiValued, Numeric
from suan_jax.data.store import open_store
from suan_jax.errors import UserError
from tests.data import row_histories_test
from tests.data.preparation_test import random_raw_log, same_files

SPEC = LogSpec(
    impressions="log-*.csv",
    user="user",
    item="item",
    time="time",
    label="click",
    candidate=(Categorical(name="item"), MultiValued(name="tags", values=2, separator="|")),
    history=(Categorical(name="item"),),
    profile=(Categorical(name="city"), Bucketed(name="age", buckets=3)),
    context=(Categorical(name="place"), Numeric(name="price", log1p=True)),
    items=Keyed(path="items.parquet"),
    users=Keyed(path="users.parquet"),
    test_share=0.2,
    validation_share=0.1,
)


def _tables(folder) -> LogSpec:
    """Impressions in three files of unlike sizes, some repeated; `city` is of the user's first one."""
    random = np.random.default_rng(5)
    rows, users, items = 700, 60, 25
    log = pl.DataFrame(
        {
            "user": random.integers(0, users, rows),
            "item": random.integers(0, items, rows),
            "time": random.integers(1_600_000_000, 1_600_000_400, rows),
            "click": random.integers(0, 2, rows),
            "place": random.integers(0, 4, rows),
            "price": random.integers(0, 9, rows) / 4,
            "city": random.integers(0, 5, rows),
        }
    )
    log = pl.concat([log, log[:400:7]])  # repeats, in another file
    for index, (start, end) in enumerate(((0, 130), (130, 131), (131, log.height))):
        log[start:end].write_csv(folder / f"log-{index}.csv")
    pl.DataFrame({"item": range(items), "tags": [f"{i % 3}|x{i % 5}" for i in range(items)]}).write_parquet(
        folder / "items.parquet"
    )
    pl.DataFrame({"user": range(users), "age": random.integers(10, 90, users)}).write_parquet(
        folder / "users.parquet"
    )
    events = pl.DataFrame(
        {
            "user": random.integers(0, users + 9, 900),  # some have no impression
            "item": random.integers(0, items, 900),
            "time": random.integers(1_599_999_900, 1_600_000_400, 900),
            "what": random.choice(["cart", "view"], 900),
        }
    )
    events.write_parquet(folder / "events.parquet")
    return SPEC


def _own_events(spec: LogSpec) -> LogSpec:
    return dataclasses.replace(spec, events=Events(path="events.parquet", action="what"))


def _on_both(raw: RawLog, folder, monkeypatch, rows: int = 120):
    """Prepares a log locally and on Beam, in several partitions and pieces; the two stores."""
    monkeypatch.setattr(preparation, "ROWS_PER_PARTITION", rows)
    monkeypatch.setattr(beam_preparation, "ROWS_PER_PIECE", 90)
    local = prepare(raw, folder / "local", "test")
    beam = prepare_on_beam(raw, folder / "beam", "test")
    assert beam == local
    return folder / "local", folder / "beam"


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec,
        _own_events,
        lambda spec: dataclasses.replace(spec, history_of="clicked", drop_repeats=True),
    ],
    ids=["impressions", "events", "repeats"],
)
def test_a_described_log_gives_the_same_bytes(tmp_path, monkeypatch, change):
    raw = logs.read(tmp_path, change(_tables(tmp_path)))
    local, beam = _on_both(raw, tmp_path, monkeypatch)
    assert same_files(local, beam)
    assert len(list(beam.glob("shard-*"))) > 3
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "raw", [random_raw_log(), row_histories_test._raw("timed")], ids=["events", "row histories"]
)
def test_any_source_gives_the_same_bytes(tmp_path, monkeypatch, raw):
    assert same_files(*_on_both(raw, tmp_path, monkeypatch))


def test_more_partitions_than_users_leave_no_empty_shard(tmp_path, monkeypatch):
    local, beam = _on_both(random_raw_log(users=3), tmp_path, monkeypatch, rows=10)
    assert same_files(local, beam)
    assert open_store(beam).statistics["sequences"] == len(list(beam.glob("shard-*"))) == 3


@pytest.mark.parametrize("rows", [7, 90, 10_000])
def test_pieces_are_the_whole_log(tmp_path, rows):
    raw = logs.read(tmp_path, _own_events(_tables(tmp_path)))
    pieces = raw.pieces(rows)
    for name in ("impressions", "events"):
        whole = getattr(raw, name).collect()
        parts = [piece.collect() for piece in pieces[name]]
        assert max(part.height for part in parts) <= rows
        assert pl.concat(parts).sort("_order").equals(whole.sort("_order"))


def test_workers_may_be_processes_of_their_own(tmp_path):
    spec = _tables(tmp_path)
    (tmp_path / "spec.py").write_text(
        f"from suan_jax.data.sources.log_spec import *\n\ndef get_spec():\n    return {spec!r}\n"
    )
    prepare(logs.read(tmp_path, spec), tmp_path / "local", "logs")
    arguments = ["--source=logs", f"--raw={tmp_path}", f"--spec={tmp_path / 'spec.py'}", "--out=beam"]
    arguments += ["--runner=DirectRunner", "--", "--direct_running_mode=multi_processing"]
    launch = pathlib.Path(__file__).parents[2] / "launch" / "prepare.py"
    done = subprocess.run(
        [sys.executable, launch, *arguments, "--direct_num_workers=2"],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(launch.parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert same_files(tmp_path / "local", tmp_path / "beam")


def test_options_that_beam_does_not_know_are_named_and_so_are_the_stages(tmp_path, capsys):
    options = ["--runner=DirectRunner", "--flnk_master=host:8081", "--direct_num_workers=1"]
    prepare_on_beam(random_raw_log(), tmp_path / "store", "test", options=options)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("--flnk_master=host:8081 is no option of Beam, the nearest is --flink_master: ")
    assert [line.split(" ")[0] for line in said[1:]] == ["counting", "writing", "joining"]


def test_a_runner_that_does_not_answer_is_named(tmp_path):
    options = ["--runner=PortableRunner", "--job_endpoint=localhost:1", "--job_server_timeout=1"]
    with pytest.raises(UserError, match=r"^--runner=PortableRunner: its job server does not answer$"):
        prepare_on_beam(random_raw_log(), tmp_path / "store", "test", options=options)
    assert not list(tmp_path.iterdir())


def test_mistakes_that_workers_find_end_with_a_sentence_and_bugs_with_a_traceback(tmp_path, monkeypatch):
    def attempt(text, cause=None):
        def fail(*_):
            raise RuntimeError(text) from cause

        monkeypatch.setattr(beam_preparation, "_tally", fail)
        prepare_on_beam(random_raw_log(), tmp_path / "store", "test")

    said = "Job failed\nTraceback\n  f()\nsuan_jax.errors.UserError: it is 7 [while running 'x']\n\nat java"
    with pytest.raises(UserError, match=r"^it is 7$"):
        attempt(said)
    with pytest.raises(UserError, match=r"^it is 8$"):
        attempt("failed", UserError("it is 8"))
    with pytest.raises(RuntimeError, match="KeyError"):
        attempt("Job failed\nTraceback\n  f()\nKeyError: 'user'\n")
    assert not list(tmp_path.iterdir())


def test_mistakes_leave_nothing(tmp_path):
    raw = random_raw_log()
    no_test = dataclasses.replace(raw, impressions=raw.impressions.with_columns(pl.lit(False).alias(TEST)))
    with pytest.raises(UserError, match="test split is empty"):
        prepare_on_beam(no_test, tmp_path / "store", "test")
    with pytest.raises(UserError, match=r"^--runner=Nope is no runner of Beam, expected .*DirectRunner,"):
        prepare_on_beam(raw, tmp_path / "store", "test", options=["--runner=Nope"])
    with pytest.raises(UserError, match=r"^--runner=os.path is no runner of Beam \('module' object is not"):
        prepare_on_beam(raw, tmp_path / "store", "test", options=["--runner=os.path"])
    options = ["--runner=DirectRunner", "--direct_num_workers=many"]
    with pytest.raises(UserError, match=r"Beam: argument --direct_num_workers: invalid int value: 'many'"):
        prepare_on_beam(raw, tmp_path / "store", "test", options=options)
    no_number = pl.col("item").cast(pl.String).add("x").cast(pl.Int64)
    broken = dataclasses.replace(raw, events=raw.events.with_columns(no_number.alias("item")))
    with pytest.raises(pl.exceptions.PolarsError, match="conversion"):
        prepare_on_beam(broken, tmp_path / "store", "test")
    assert not list(tmp_path.iterdir())
