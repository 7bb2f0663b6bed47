"""Work directories and stores at gs://, on a server of this machine that speaks Google's protocol."""

import dataclasses
import functools
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from suan_jax.config import MeshConfig
from suan_jax.data import open_store
from suan_jax.errors import Unreached, UserError
from suan_jax.files import read_json, write_array, write_bytes, write_json
from suan_jax.models.din import Din
from suan_jax.paths import files_below, is_remote, move_folder, path_of
from suan_jax.scaling.report import fit_runs, read_report, write_report
from suan_jax.scaling.runs import read_table
from suan_jax.serving.artifact import Artifact
from suan_jax.studies import SweepConfig, grid, sweep
from suan_jax.training.checkpoint import Checkpoints
from suan_jax.training.evaluate_run import evaluate_run
from suan_jax.training.metric_writer import MetricWriter, read_metrics
from suan_jax.training.restore import restore_learnt
from suan_jax.training.setup import set_up
from suan_jax.training.workdir import check_unclaimed, claim, read_config, read_scores, read_summary
from tests.data.store_test import assert_same, random_log, write
from tests.ports import free_port
from tests.studies.stand_in import train_by
from tests.training.runs import Job, assert_same_bits, last_state, rows, tiny, train_arguments

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("gcsfs", "gcp_storage_emulator"))),
    reason="gcsfs, of the extra gcs, or gcp-storage-emulator is not installed",
)


@pytest.fixture(scope="module")
def bucket():
    """The path of a bucket that all clients are sent to, in this process and in those that it starts."""
    port = free_port()
    command = [sys.executable, Path(__file__).with_name("object_store_server.py"), str(port)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    variables = {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks Google itself what kind of bucket it is
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setitem(os.environ, name, value)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        yield path_of("gs://bucket")
    server.kill()
    server.wait()


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _names(folder):
    return sorted(str(file).removeprefix(f"{folder}/") for file in files_below(folder))


def _copy_up(directory, address):
    for file in files_below(directory):
        write_bytes(address / file.relative_to(directory).as_posix(), file.read_bytes())


def test_files_are_written_replaced_listed_and_moved(bucket):
    folder = bucket / "files"
    assert is_remote(folder) and not folder.exists()
    for value in (1, 2):
        write_json(folder / "a/x.json", value)
        assert read_json(folder / "a/x.json") == value
    write_json(folder / "a/b/c=1,d=0.5/y.json", 3)
    write_json(folder / "old/z.json", 4)
    assert sorted(files_below(folder, "y*")) == [folder / "a/b/c=1,d=0.5/y.json"]
    move_folder(folder / "a", folder / "old")
    assert _names(folder) == ["old/b/c=1,d=0.5/y.json", "old/x.json"]
    assert read_json(folder / "old/x.json") == 2


def test_rows_are_there_when_a_checkpoint_is_and_once_after_a_resume(bucket):
    folder, file = bucket / "rows", bucket / "rows/metrics.jsonl"
    writer = MetricWriter(folder)
    assert read_metrics(file) == []
    for step in range(1, 6):
        writer.write(step, loss=1 / step)
    assert read_metrics(file) == []  # a store takes one object a second
    writer.sync()
    assert [row["step"] for row in read_metrics(file)] == [1, 2, 3, 4, 5]
    resumed = MetricWriter(folder, resume_step=3)
    resumed.write(4, loss=0.0)
    resumed.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(file)][2:] == [(3, 1 / 3), (4, 0.0)]


def test_a_store_gives_the_same_blocks_and_is_copied_once(bucket, tmp_path, capsys):
    log = random_log(1)
    _copy_up(write(tmp_path / "store", log, shard_bytes=4000), bucket / "store")
    here, there = open_store(tmp_path / "store"), open_store("gs://bucket/store")
    assert str(there) == "the store at gs://bucket/store"
    assert there.fingerprint == here.fingerprint
    for index in range(log.num_blocks):
        assert_same(there.block(index), here.block(index))
    assert capsys.readouterr().err.count("copying gs://bucket/store, ") == 1
    (bucket / "store/schema.json").unlink()  # it is not read again
    open_store("gs://bucket/store")
    assert capsys.readouterr().err == ""
    assert not list((tmp_path / "cache/suan_jax/stores").glob(".*"))


def test_a_store_that_is_not_whole_is_not_copied(bucket, tmp_path):
    with pytest.raises(UserError, match=r"^no store at gs://bucket/nothing, which has no checksums.json"):
        open_store("gs://bucket/nothing")
    _copy_up(write(tmp_path / "store", random_log(2)), bucket / "broken")
    schema = bucket / "broken/schema.json"
    content = schema.read_bytes()
    for wrong, sentence in (
        (content.replace(b"random", b"rondom"), "schema.json is altered, its checksum differs"),
        (content[:-1], r"schema.json has \d+ bytes, expected \d+"),
        (None, "gs://bucket/broken lacks a file of its checksums.json"),
    ):
        schema.write_bytes(wrong) if wrong else schema.unlink()
        with pytest.raises(UserError, match=sentence):
            open_store("gs://bucket/broken")
    assert [path.suffix for path in (tmp_path / "cache/suan_jax/stores").iterdir()] == [".lock"]


def test_a_damaged_copy_says_so(bucket, tmp_path):
    _copy_up(write(tmp_path / "store", random_log(3)), bucket / "sound")
    open_store("gs://bucket/sound")
    shard = next((tmp_path / "cache").rglob("shard-*"))
    shard.write_bytes(bytes(shard.stat().st_size))
    store = open_store("gs://bucket/sound")
    with pytest.raises(UserError, match=r"cannot be read: it is damaged, remove .*/stores/[0-9a-f]*, a copy"):
        store.block(0)


def test_runs_are_read_from_a_table_and_from_summaries(bucket):
    for grade in range(3):
        summary = {"model": "suan", "grade": grade, "auc": 0.5 + grade / 10, "params": {"body": 10**grade}}
        write_json(bucket / f"sweep/cells/grade={grade}/summary.json", summary)
    summaries = read_table(bucket / "sweep")
    assert summaries["auc"].to_list() == [0.5, 0.6, 0.7]
    assert summaries["cell"][0] == "gs://bucket/sweep/cells/grade=0"
    write_bytes(bucket / "sweep/runs.csv", b"grade,auc\n0,0.25\n")
    for path in ("sweep", "sweep/runs.csv"):
        assert read_table(bucket / path)["auc"].to_list() == [0.25]
    with pytest.raises(UserError, match=r"^gs://bucket/none does not exist"):
        read_table(bucket / "none")


def test_a_law_is_fitted_and_drawn_there(bucket):
    rows = [f"{x},{0.7 - x**-0.5:.6f}" for x in (10, 30, 100, 300, 1000)]
    write_bytes(bucket / "law/runs.csv", "\n".join(["params_body,auc", *rows, ""]).encode())
    report = fit_runs(bucket / "law", "params_body", "auc", "power")
    write_report(report, bucket / "law/fit")
    again = read_report(bucket / "law/fit/fit.json")
    assert again.law.parameters == report.law.parameters
    figures = ["fit.png", "fit.svg"] if importlib.util.find_spec("matplotlib") else []
    assert _names(bucket / "law/fit") == ["fit.json", *figures]


def test_cells_of_a_sweep_live_there(bucket, monkeypatch):
    scores = np.zeros(3, [("user", np.int64), ("label", np.uint8), ("logit", np.float32)])
    scores["logit"] = np.arange(3.0)

    def train(config, workdir):
        check_unclaimed(workdir, config)
        claim(workdir, config)
        write_json(workdir / "summary.json", {"auc": 0.5 + config.train.seed / 10, "params": {"body": 7}})
        write_array(workdir / "scores.npy", scores)
        return read_summary(workdir)

    train_by(monkeypatch, train)
    config = SweepConfig(model=Din(), cells=grid({"train.seed": (0, 1), "data.train_fraction": (0.5, 1.0)}))
    for _ in range(2):
        result = sweep(config, bucket / "study")
        assert not result.failures and not result.unfinished
        assert read_table(bucket / "study")["auc"].to_list() == [0.5, 0.5, 0.6, 0.6]
    cell = bucket / "study/cells/seed=1,train_fraction=0.5"
    assert read_config(cell).train.seed == 1
    np.testing.assert_array_equal(read_scores(cell), scores)
    with pytest.raises(UserError, match=r"gs://bucket/study/cells/\S* holds a run of another config"):
        sweep(dataclasses.replace(config, data=dataclasses.replace(config.data, max_len=9)), bucket / "study")


def test_what_cannot_be_there_is_refused(bucket, tmp_path):
    for act in (
        functools.partial(Artifact, "gs://bucket/artifact"),
        functools.partial(evaluate_run, bucket / "run", "test", Path("gs://bucket/x.parquet")),
        functools.partial(check_unclaimed, Path("gs://bucket/run"), tiny()),
        functools.partial(read_config, Path("gs://bucket/run")),
    ):
        with pytest.raises(UserError, match=r"^gs://bucket/[a-z.]* is in an object store, expected "):
            act()


def test_a_bucket_that_is_not_there_is_named(bucket):
    assert not path_of("gs://bucket/nothing/here").exists()
    with pytest.raises(
        UserError, match="gs://nowhere/run cannot be reached: this account sees no such bucket"
    ):
        path_of("gs://nowhere/run")


@pytest.mark.parametrize("error", [OSError("Forbidden: no right"), ConnectionResetError("try again")])
def test_who_may_not_is_told_so_and_a_broken_connection_is_no_mistake(bucket, monkeypatch, error):
    def fail(*_):
        raise error

    forbidden = type(error) is OSError
    ended, raised = (UserError, UserError) if forbidden else (Unreached, ConnectionResetError)
    with monkeypatch.context() as patch:
        patch.setattr("etils.epath.backend.fsspec_backend.exists", fail)
        with pytest.raises(ended, match=f"gs://bucket/x cannot be reached.*{error}") as told:
            path_of("gs://bucket/x")
        assert told.value.exit_code == (2 if forbidden else 75)
        patch.setattr("etils.epath.backend.fsspec_backend.exists", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            path_of("gs://bucket/x")
    with monkeypatch.context() as patch:
        patch.setattr("etils.epath.backend.fsspec_backend.open", fail)
        with pytest.raises(raised, match="cannot write gs://bucket/x: Forbidden" if forbidden else "try"):
            write_json(bucket / "x", 1)


_OVERRIDES = (
    "optimizer.learning_rate=1e-4",  # a small one, as Adam's first steps magnify rounding
    "train.batch_size=8",
    "train.eval_batch_size=16",
    "train.steps=40",
    "train.eval_every=15",
    "train.eval_split=validation",
    "checkpoint.every=7",
)


def _is_saved(checkpoint):
    time.sleep(0.1)  # the server has one thread
    return (checkpoint / "commit_success.txt").exists()


@pytest.fixture(scope="module")
def runs(bucket, tmp_path_factory):
    """A run here, left alone, and one at gs:// from a store there that was killed, stopped and repeated."""
    folder = tmp_path_factory.mktemp("runs")
    environment = {"XDG_CACHE_HOME": str(folder / "cache")}
    write(folder / "store", random_log(4, blocks=24))
    _copy_up(folder / "store", bucket / "data")

    def start(workdir, store):
        return Job(*train_arguments(workdir, *_OVERRIDES, arguments=f"store={store}"), **environment)

    def saved(step):
        return functools.partial(_is_saved, bucket / f"run/checkpoints/{step}")

    results = [start(folder / "run", folder / "store").end()]
    results += [start(bucket / "run", bucket / "data").until(saved(7), signal.SIGKILL).end()]
    results += [start(bucket / "run", bucket / "data").until(saved(21), signal.SIGTERM).end()]
    results += [start(bucket / "run", bucket / "data").end() for _ in range(2)]
    codes = [result.returncode for result in results]
    assert codes == [0, -signal.SIGKILL, 75, 0, 0], [result.stderr for result in results]
    return folder, results


def test_a_run_that_was_killed_and_repeated_is_the_one_here(bucket, runs):
    folder, results = runs
    config = tiny(*_OVERRIDES, arguments=f"store={folder / 'store'}")
    expected, beside = last_state(folder / "run", config)
    got, got_beside = last_state(bucket / "run", config)
    assert int(got.step) == 40
    assert_same_bits(got, expected)
    assert got_beside["iterator"] == beside["iterator"]
    assert rows(bucket / "run") == rows(folder / "run")
    assert [line for line in results[2].stderr.splitlines() if " goes on at step " in line]
    files = [name for name in _names(bucket / "run") if not name.startswith("checkpoints/")]
    assert files == ["config.json", "metrics.jsonl", "summary.json", "versions.json"]
    assert {name.split("/")[1] for name in _names(bucket / "run/checkpoints")} > {"state", "checksums.json"}
    assert results[3].stdout == results[4].stdout != ""


def test_it_is_evaluated_and_served_as_the_one_here(bucket, runs):
    assert evaluate_run(bucket / "run", "test") == evaluate_run(runs[0] / "run", "test")
    _, expected, _ = restore_learnt(runs[0] / "run", MeshConfig())
    _, got, digest = restore_learnt(bucket / "run", MeshConfig())
    assert_same_bits(got, expected)
    assert len(digest) == 16


def test_two_hosts_without_a_shared_disk_train_it(bucket, runs, tmp_path):
    folder, workdir = runs[0], bucket / "pair"
    arguments = train_arguments(workdir, *_OVERRIDES, "train.steps=10", arguments="store=gs://bucket/data")
    arguments += [f"--coordinator=localhost:{free_port()}", "--processes=2"]
    environment = {"JAX_NUM_CPU_DEVICES": "1"}
    caches = [tmp_path / str(host) for host in range(2)]
    jobs = [
        Job(*arguments, f"--process={host}", **environment, XDG_CACHE_HOME=str(cache))
        for host, cache in enumerate(caches)
    ]
    results = [job.end(300) for job in jobs]
    assert [result.returncode for result in results] == [0, 0], [result.stderr for result in results]
    assert all(list(cache.rglob("shard-*")) for cache in caches)
    expected = {row["step"]: row["loss"] for row in rows(folder / "run") if "loss" in row}
    got = {row["step"]: row["loss"] for row in rows(workdir) if "loss" in row}
    assert sorted(got) == list(range(1, 11))
    np.testing.assert_allclose([got[step] for step in got], [expected[step] for step in got], rtol=1e-4)
    result = read_json(workdir / "summary.json")
    assert evaluate_run(workdir, "test")["auc"] == pytest.approx(result["auc"], abs=1e-6)


def test_a_damaged_checkpoint_is_set_aside(bucket, runs, capsys):
    folder = bucket / "damaged"
    for file in files_below(bucket / "run/checkpoints"):
        write_bytes(folder / str(file).removeprefix("gs://bucket/run/"), file.read_bytes())
    array = next(file for file in files_below(folder / "checkpoints/40") if "/d/" in str(file))
    content = bytearray(array.read_bytes())
    content[-1] ^= 1
    array.write_bytes(content)
    setup = set_up(tiny(*_OVERRIDES, arguments=f"store={runs[0] / 'store'}"))
    checkpoints = Checkpoints(folder / "checkpoints")
    before = checkpoints.steps()[:-1]
    state, _ = checkpoints.restore(setup.abstract)
    assert [int(state.step)] == before == checkpoints.steps()
    checkpoints.close()
    assert "is altered) and moved to gs://bucket/damaged/damaged_checkpoint_40" in capsys.readouterr().err
    assert not (folder / "checkpoints/40").exists()
    assert read_json(folder / "damaged_checkpoint_40/checksums.json")
