"""The batch script, run by bash with stand-ins for Slurm's own commands."""

import os
import signal
import subprocess
import time

import pytest

from suan_jax.cluster.job import IN_PARTS, ON_ALL_HOSTS, parse_job
from suan_jax.cluster.slurm import Nodes, script

TRAIN = parse_job("suan", "launch/train.py --config=configs/suan.py --workdir=/shared/x", ON_ALL_HOSTS)
SWEEP = parse_job("sizes", "launch/sweep.py --config=configs/data_size.py --workdir=/shared/x", IN_PARTS)
NODES = Nodes(nodes=2, gpus=8, cpus=8, minutes=60)


@pytest.fixture
def run(tmp_path):
    """Starts a script whose srun runs a line of shell; both commands note how they were called."""

    def start(text, srun):
        note = f'"$@" >> {tmp_path}/calls'
        for name, line in {"srun": f"echo srun {note}; {srun}", "scontrol": f"echo scontrol {note}"}.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
            (tmp_path / name).chmod(0o755)
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
        environment["SLURM_ARRAY_TASK_ID"] = "3"
        return subprocess.Popen(["bash", "-c", text], env=environment)

    start.calls = lambda: (tmp_path / "calls").read_text().splitlines()
    return start


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (2, False), (75, True)])
def test_a_stopped_job_alone_is_queued_again(run, code, requeued):
    assert run(script(TRAIN, NODES), f"exit {code}").wait(60) == code
    calls = run.calls()
    assert calls[0].endswith("launch/train.py --config=configs/suan.py --workdir=/shared/x --distributed")
    assert calls[1:] == ["scontrol requeue 17"] * requeued


def test_a_cancelled_job_is_not_queued_again_but_waited_for(run, tmp_path):
    process = run(script(TRAIN, NODES), f"touch {tmp_path}/running; sleep 1; exit 75")
    while not (tmp_path / "running").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    assert len(run.calls()) == 1


def test_an_element_of_an_array_runs_its_part(run):
    text = script(SWEEP, Nodes(nodes=1, gpus=4, cpus=8, minutes=60), parts=24)
    assert run(text, "exit 0").wait(60) == 0
    assert run.calls()[0].endswith("--workdir=/shared/x --part=3 --parts=24")
    options = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --array=0-23", "#SBATCH --ntasks-per-node=1", "#SBATCH --gpus-per-node=4"} <= {*options}


def test_every_gpu_has_its_process():
    options = script(TRAIN, NODES).splitlines()
    assert {"#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=8", "#SBATCH --gpus-per-node=8"} <= {*options}
