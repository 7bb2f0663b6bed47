"""What the launchers would run, against text that people have read."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = pathlib.Path(__file__).parent / "golden"
TRAIN = "--job=launch/train.py --config=configs/suan.py:grade=1 --workdir=/shared/runs/suan"
SWEEP = "--job=launch/sweep.py --config=configs/data_size.py --workdir=/shared/runs/data_size"
SLICE = (
    "--zone=us-west4-a",
    "--accelerator=v5litepod-256",
    "--version=v2-alpha-tpuv5-lite",
    "--nfs=10.0.0.2:/share",
    "--repository=https://example.com/suan-jax.git",
    "--commit=v0.1.0",
)
PODS = ("--image=registry.example.com/suan-jax:1", "--claim=shared")
CASES = {
    "tpu_pod": ("tpu_pod", *SLICE, TRAIN),
    "tpu_pod_logs": ("tpu_pod", SLICE[0], "--logs"),
    "tpu_pod_list": ("tpu_pod", SLICE[0], "--list"),
    "tpu_pod_stop": ("tpu_pod", SLICE[0], "--stop"),
    "gke": ("gke", *PODS, TRAIN),
    "gke_remote": ("gke", PODS[0], TRAIN.replace("/shared/", "gs://bucket/")),
    "gke_logs": ("gke", "--logs"),
    "gke_list": ("gke", "--list"),
    "kubernetes_sweep": ("kubernetes_sweep", *PODS, "--parts=24", SWEEP),
    "kubernetes_sweep_logs": ("kubernetes_sweep", "--logs"),
    "kubernetes_sweep_list": ("kubernetes_sweep", "--list"),
    "slurm": ("slurm", "--nodes=4", "--gpus=8", "--partition=gpu", TRAIN),
    "slurm_sweep": ("slurm", "--parts=24", "--gpus=1", SWEEP),
    "slurm_logs": ("slurm", "--logs"),
    "slurm_list": ("slurm", "--list"),
}


def _launch(launcher, *arguments, **environment):
    command = [sys.executable, str(ROOT / "launch" / "cluster" / f"{launcher}.py"), "--name=suan", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize("case", CASES)
def test_a_dry_run_prints_the_golden_text(case):
    done = _launch(*CASES[case], "--dry-run", PATH="")  # with no tool to be found it must not try one
    assert done.returncode == 0, done.stderr
    shown = done.stdout.replace(sys.executable, "PYTHON").replace(str(ROOT), "CHECKOUT")
    golden = GOLDEN / f"{case}.txt"
    if os.environ.get("REWRITE_GOLDEN"):
        golden.write_text(shown)
    assert shown == golden.read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("gke", *PODS), "--job= starts with no job for this, expected launch/train.py or"),
        (("gke", *PODS, SWEEP), "starts with no job for this"),
        (("kubernetes_sweep", *PODS, TRAIN), "starts with no job for this, expected launch/sweep.py"),
        (("gke", *PODS, "--job=launch/train.py --config=x.py"), "has no --workdir=/PATH"),
        (("gke", *PODS, "--job=launch/train.py --workdir=runs/x"), "has no --workdir=/PATH"),
        (("gke", *PODS, TRAIN, "--topology=3x3"), "--topology=3x3 is no grid of hosts with 4 chips"),
        (("gke", TRAIN), "--image is missing: image of the container"),
        (("gke", PODS[0], TRAIN), "--claim is missing: PersistentVolumeClaim"),
        (("gke", *PODS, TRAIN.replace("suan.py", "sun.py")), "--config=configs/sun.py of --job is no file"),
        (("slurm", f"{SWEEP} --part=1", "--parts=2"), "has --part=1, which is for the launcher to give"),
        (("gke", *PODS, f"{TRAIN} --processes=2"), "has --processes=2, which is for the launcher to give"),
        (("gke", "--list", "--stop"), "--list and --stop are given, expected one of them"),
        (("slurm", SWEEP, "--parts=2", "--nodes=2"), "--nodes=2 is too many"),
        (("tpu_pod", SLICE[0], TRAIN), "--accelerator is missing"),
        (("slurm", TRAIN, "--name=Suan_1"), "--name=Suan_1 is not a name on a cluster"),
        (("slurm", "--logs", "--name=$(touch x)"), "--name=$(touch x) is not a name on a cluster"),
        (("kubernetes_sweep", "--stop", "--name=--all"), "--name=--all is not a name on a cluster"),
        (("slurm", "--stop", "--name="), "--name= is not a name on a cluster"),
        (("slurm", f"{TRAIN} 'x"), "cannot be split into words (No closing quotation)"),
        (("slurm", TRAIN, "--partition=a\ntouch x"), "--partition=a touch x is no name of a partition"),
        (("gke", *PODS, TRAIN, "--topology=-4x-4"), "--topology=-4x-4 is no grid of hosts"),
        (("slurm", TRAIN), "sbatch is not installed on this machine: call this where"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence):
    done = _launch(*arguments, PATH="")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and sentence in done.stderr


def test_the_logs_of_a_job_are_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suan-2-17.log").write_text("of the job suan-2")
    done = _launch("slurm", "--logs")
    assert done.returncode == 2
    assert done.stderr == (
        "error: no log of suan here yet: call this in the folder where the job was submitted\n"
    )
    for job in (17, 18):
        (tmp_path / f"suan-{job}.log").write_text(f"of {job}")
    done = _launch("slurm", "--logs")
    assert done.returncode == 0 and "of the job suan-2" not in done.stdout
    assert "of 17" in done.stdout and "of 18" in done.stdout
