"""Jobs of several processes on this machine, against the same job of one."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests import processes_run
from tests.ports import free_port
from tests.training.runs import ROOT, Job, arrays, last_state, rows, tiny, train_arguments

_OVERRIDES = (
    "optimizer.learning_rate=1e-4",  # a small one, as Adam's first steps magnify rounding
    "train.steps=24",
    "train.eval_every=12",
    "train.eval_split=validation",
    "train.eval_batch_size=128",
    "train.save_scores=True",
    "checkpoint.every=8",
)
_FILES = ["checkpoints", "config.json", "metrics.jsonl", "scores.npy", "summary.json", "versions.json"]
_COUNTS = [2, pytest.param(4, marks=pytest.mark.skipif("FOUR_HOSTS" not in os.environ, reason="slow"))]
_PATIENCE = 400  # seconds


def _start(workdir, count, *overrides, devices=1):
    """The processes of one job."""
    arguments = train_arguments(workdir, *_OVERRIDES, *overrides)
    arguments += [f"--coordinator=localhost:{free_port()}", f"--processes={count}"]
    environment = {"JAX_NUM_CPU_DEVICES": str(devices)}
    return [Job(*arguments, f"--process={index}", **environment) for index in range(count)]


def _start_by_slurm(workdir, count, *overrides):
    """The same with what srun would tell them on one node."""
    arguments = [*train_arguments(workdir, *_OVERRIDES, *overrides), "--distributed"]
    # JAX makes the port of the job's number.
    slurm = {
        "JOB_ID": free_port() % 4096,
        "STEP_NODELIST": "localhost",
        "STEP_NUM_NODES": 1,
        "NTASKS": count,
    }
    jobs = []
    for index in range(count):
        own = {**slurm, "PROCID": index, "LOCALID": index}
        environment = {f"SLURM_{name}": str(value) for name, value in own.items()}
        jobs.append(Job(*arguments, JAX_NUM_CPU_DEVICES="1", **environment))
    return jobs


def _end(jobs):
    results = [job.end(_PATIENCE) for job in jobs]
    return [result.returncode for result in results], results


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The work directory of a run of one process."""
    workdir = tmp_path_factory.mktemp("hosts") / "one"
    result = Job(*train_arguments(workdir, *_OVERRIDES)).end(_PATIENCE)
    assert result.returncode == 0, result.stderr
    return workdir


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """That of a run of two processes, two devices each, and what they printed."""
    workdir = tmp_path_factory.mktemp("hosts") / "two"
    codes, results = _end(_start(workdir, 2, devices=2))
    assert codes == [0, 0], results
    return workdir, results


def _assert_same_run(workdir, one):
    """All numbers of two runs agree, and the same examples were scored in the same order."""
    got, expected = rows(workdir), rows(one)
    assert [(row["step"], row.get("split")) for row in got] == [
        (row["step"], row.get("split")) for row in expected
    ]
    assert [row["step"] for row in got if "split" not in row] == list(range(1, 25))
    for name in ("loss", "log_loss", "auc", "examples"):
        values = [[row[name] for row in table if name in row] for table in (got, expected)]
        assert values[1]
        np.testing.assert_allclose(*values, rtol=1e-5, err_msg=name)
    scores, wanted = np.load(workdir / "scores.npy"), np.load(one / "scores.npy")
    np.testing.assert_array_equal(scores["user"], wanted["user"])
    np.testing.assert_array_equal(scores["label"], wanted["label"])
    np.testing.assert_allclose(scores["logit"], wanted["logit"], rtol=1e-4, atol=1e-5)
    config = tiny(*_OVERRIDES)
    (state, beside), (wanted_state, wanted_beside) = last_state(workdir, config), last_state(one, config)
    for name, array in arrays(wanted_state).items():
        np.testing.assert_allclose(arrays(state)[name], array, rtol=1e-3, atol=1e-5, err_msg=name)
    assert beside["iterator"] == wanted_beside["iterator"]


def test_two_processes_train_as_one_does(one, two):
    _assert_same_run(two[0], one)


def test_one_process_writes_and_speaks(two):
    workdir, (first, second) = two
    assert sorted(path.name for path in workdir.iterdir()) == _FILES
    assert "test examples" in first.stdout
    said = (second.stdout + second.stderr).splitlines()
    said = [line for line in said if not line.startswith("[Gloo]")]  # which XLA prints
    assert len(said) == 1 and said[0].startswith("waiting for 2 processes at localhost:"), said
    (versions,) = json.loads((workdir / "versions.json").read_text())
    assert (versions["from_step"], versions["processes"], versions["devices"]) == (0, 2, {"cpu": 4})


@pytest.mark.parametrize("count", _COUNTS)
def test_killed_processes_start_again_and_end_as_if_they_had_not_been(one, tmp_path, count):
    jobs = _start(tmp_path, count)
    saved = tmp_path / "checkpoints" / "8"
    jobs[-1].until(lambda: saved.exists() and rows(tmp_path)[-1]["step"] > 8, signal.SIGKILL, _PATIENCE)
    # The others cannot go on without it, which JAX finds in a minute or two; a scheduler ends them.
    for job in jobs[:-1]:
        job.process.kill()
    codes, _ = _end(jobs)
    assert codes == [-signal.SIGKILL] * count
    assert not (tmp_path / "summary.json").exists()
    codes, results = _end(_start(tmp_path, count))
    assert codes == [0] * count, results
    assert re.search("goes on at step (8|16) of 24", results[0].stderr)
    _assert_same_run(tmp_path, one)


@pytest.mark.parametrize("count", _COUNTS)
def test_a_signal_to_one_process_stops_all_at_one_step(tmp_path, count):
    endless = ("train.steps=1000000", "checkpoint.every=1000000", "train.eval_every=0")
    jobs = _start_by_slurm(tmp_path, count, *endless)
    jobs[-1].until(lambda: any(row["step"] >= 3 for row in rows(tmp_path)), signal.SIGTERM, _PATIENCE)
    codes, results = _end(jobs)
    assert codes == [75] * count, results
    # Saved by all together, under one step, the last that has a row.
    (saved,) = [int(path.name) for path in (tmp_path / "checkpoints").iterdir()]
    assert saved == rows(tmp_path)[-1]["step"]
    assert f"stopped by SIGTERM at step {saved} of 1000000" in results[0].stderr
    assert all("stopped by" not in result.stderr for result in results[1:])


@pytest.fixture(scope="module", params=_COUNTS)
def seen(request, tmp_path_factory):
    """What each of several processes gathered of the batches of a log, on two devices each."""
    folder, port = tmp_path_factory.mktemp("batches"), free_port()
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, processes_run.__file__, str(folder), str(port), str(request.param)]
    jobs = [
        subprocess.Popen([*command, str(index)], env=environment, stderr=subprocess.PIPE, text=True)
        for index in range(request.param)
    ]
    errors = [job.communicate(timeout=_PATIENCE)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * request.param, errors
    return [json.loads((folder / f"{index}.json").read_text()) for index in range(request.param)]


def test_every_example_is_seen_once_an_epoch(seen):
    for process in seen:
        for mesh, ids in process["ids"].items():
            assert len(ids) == process["epoch"], mesh
            assert len(set(ids)) == process["epoch"], mesh
            assert ids == seen[0]["ids"]["in order"], mesh  # the order does not depend on the mesh


def test_processes_assemble_what_their_devices_hold(seen):
    count = len(seen)
    in_order = [process["shards"]["in order"] for process in seen]
    assert in_order == [[[2 * index, 2 * index + 1], 2 * count] for index in range(count)]
    assert all(process["shards"]["model alone"] == [[0], 1] for process in seen)
    within = [process["shards"]["model within a process"] for process in seen]
    assert within == [[[index], count] for index in range(count)]
    if count == 2:
        assert [process["shards"]["interleaved"] for process in seen] == [[[0, 2], 4], [[1, 3], 4]]
        assert [process["shards"]["model across processes"] for process in seen] == [[[0, 1], 2]] * 2


def test_what_the_first_process_says_holds_for_all(seen):
    for process in seen:
        assert process["told"] == "by 0"
        assert process["refused"] == ["no, says 0", 2]
        assert process["unreached"] == ["no, says 0", 75]
        assert process["differs"][0].startswith(f"it is not the same in all {len(seen)} processes")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--processes=2"], "--processes=2 is given without --coordinator=HOST:PORT"),
        (["--coordinator=localhost:1", "--processes=2"], "--processes=2 and --process=None"),
        (["--coordinator=localhost:1", "--processes=2", "--process=2"], "expected their number"),
        (["--coordinator=localhost:1", "--distributed"], "expected one of them"),
        (["--distributed"], "no cluster tells of other processes"),
        (["--coordinator=host0", "--processes=2", "--process=1"], "=host0 is no address, expected HOST:PORT"),
        (["--coordinator=a:99999", "--processes=2", "--process=1"], "=a:99999 is no address, expected HOST"),
    ],
)
def test_flags_that_do_not_fit_each_other(tmp_path, flags, sentence):
    result = Job(*train_arguments(tmp_path), *flags).end(_PATIENCE)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and sentence in result.stderr, result.stderr


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        flags = (f"--coordinator={address}", "--processes=2", "--process=0")
        result = Job(*train_arguments(tmp_path), *flags).end(_PATIENCE)
    assert result.returncode == 2
    assert f"--coordinator={address} is not free on this host (Address already in use)" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_is_alone_says_whom_it_waits_for_and_ends(index):
    address = f"localhost:{free_port()}"
    code = "import sys; from suan_jax import processes as p; p._MINUTES = .05; p._join(sys.argv[1], 2, {})"
    command = [sys.executable, "-c", code.format(index), address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, cwd=ROOT, check=False)
    assert done.returncode == 2
    notice, error = done.stderr.splitlines()
    assert notice == f"waiting for 2 processes at {address}, at most 0.05 minutes"
    reason = "the first cannot be reached (Connection refused)" if index else "not all of them have come"
    assert error.startswith(f"error: waited 0.05 minutes for 2 processes at {address}, and {reason}: start")


def test_processes_of_another_config_are_refused(tmp_path):
    address = f"--coordinator=localhost:{free_port()}"
    jobs = [
        Job(*train_arguments(tmp_path / "run", f"train.seed={i}"), address, "--processes=2", f"--process={i}")
        for i in range(2)
    ]
    codes, results = _end(jobs)
    assert codes == [2, 2]
    assert all("the config is not the same in all 2 processes" in result.stderr for result in results)
    assert not (tmp_path / "run").exists()
