"""A slice that is preempted, with a stand-in for gcloud; and what hosts run, with one for systemctl."""

import dataclasses
import os
import subprocess

import pytest

from suan_jax.cluster import tpu_pod
from suan_jax.cluster.job import ON_ALL_HOSTS, parse_job
from suan_jax.errors import UserError

JOB = parse_job("suan", "launch/train.py --config=configs/suan.py --workdir=/shared/x", ON_ALL_HOSTS)
SLICE = tpu_pod.Slice(
    name="suan",
    zone="z",
    accelerator="v5litepod-8",
    version="image",
    spot=True,
    nfs="host:/share",
    repository="https://example.com/suan-jax.git",
    commit="main",
)
# Answers `describe` with the next of the states, and waits with the next of the exit codes.
GCLOUD = """#!/bin/bash
next() { head -n 1 "$1"; sed -i 1d "$1"; }
case "$4 $*" in
  describe*) state=$(next states); [ -n "$state" ] && echo "$state" || exit 1 ;;
  ssh*is-failed*) echo wait >> calls; exit "$(next codes)" ;;
  ssh*systemd-run*) echo start >> calls ;;
  ssh*git*) echo install >> calls ;;
  *) echo "$4" >> calls ;;
esac
"""


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """Sets what gcloud will answer; returns what it was asked to do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "gcloud").write_text(GCLOUD)
    (tmp_path / "gcloud").chmod(0o755)

    def answers(states, codes):
        (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
        (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
        return lambda: (tmp_path / "calls").read_text().split()

    return answers


def test_a_new_slice_is_made_and_watched_to_the_end(cloud):
    calls = cloud(states=[""], codes=[0])
    tpu_pod.supervise(SLICE, JOB)
    assert calls() == ["create", "install", "start", "wait"]


def test_a_preempted_slice_is_made_again(cloud, capsys):
    calls = cloud(states=["", "PREEMPTED", "PREEMPTED"], codes=[255, 0])
    tpu_pod.supervise(SLICE, JOB)
    once = ["create", "install", "start", "wait"]
    assert calls() == [*once, "delete", *once]
    assert "suan was preempted and is made again" in capsys.readouterr().err


def test_a_slice_that_stands_is_taken_as_it_is(cloud):
    calls = cloud(states=["CREATING", "READY"], codes=[0])
    tpu_pod.supervise(SLICE, JOB, poll=0.01)
    assert calls() == ["install", "start", "wait"]


def test_a_job_that_fails_is_not_repeated(cloud):
    calls = cloud(states=["", "READY"], codes=[1])
    with pytest.raises(UserError, match="suan failed: --logs shows why"):
        tpu_pod.supervise(SLICE, JOB)
    assert calls() == ["create", "install", "start", "wait"]


@pytest.mark.parametrize(
    ("states", "failed", "code"), [(["inactive"], 1, 0), (["activating", "active", "failed"], 0, 1)]
)
def test_the_first_host_waits_for_the_job(tmp_path, states, failed, code):
    (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
    systemctl = f"""#!/bin/bash
case $1 in
  is-active) head -n 1 {tmp_path}/states; sed -i 1d {tmp_path}/states ;;
  is-failed) exit {failed} ;;
esac
"""
    (tmp_path / "systemctl").write_text(systemctl)
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    for name in ("systemctl", "sleep"):
        (tmp_path / name).chmod(0o755)
    line = tpu_pod.wait(SLICE).words[-1].removeprefix("--command=")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(["sh", "-c", line], env=environment, timeout=60).returncode == code
    assert (tmp_path / "states").read_text() == ""


@pytest.mark.parametrize("command", tpu_pod.cycle(SLICE, JOB)[1:])
def test_what_hosts_run_is_shell(command):
    line = command.words[-1].removeprefix("--command=")
    subprocess.run(["sh", "-n", "-c", line], check=True, timeout=60)


def test_a_work_directory_in_an_object_store_needs_no_share():
    job = parse_job("suan", "launch/train.py --config=configs/suan.py --workdir=gs://bucket/x", ON_ALL_HOSTS)
    assert job.is_remote and not JOB.is_remote
    line = tpu_pod.install(dataclasses.replace(SLICE, nfs="")).words[-1]
    assert "mount" not in line and "nfs" not in line
    assert "git clone" in line and "gcs" in line
    assert "sudo mount host:/share /shared" in tpu_pod.install(SLICE).words[-1]
