"""Slurm: a job over several nodes, or the parts of a sweep as an array."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys

from suan_jax.cluster.job import RESUME_CODE, ROOT, Job
from suan_jax.cluster.shell import Command, command
from suan_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Nodes:
    """What Slurm is asked for.

    Attributes:
      nodes: nodes of the job, or 1 for each part of a sweep.
      gpus: GPUs of a node, with a process each, or all with the one process of a part; 0 for none.
      cpus: processors of a process.
      minutes: longest time; the job is told to stop `grace` seconds before, saves, and is queued again.
      partition: where; empty leaves it to Slurm.
      grace: seconds that a stopped job has for saving.
    """

    nodes: int
    gpus: int
    cpus: int
    minutes: int
    partition: str = ""
    grace: int = 120


def script(job: Job, nodes: Nodes, parts: int = 0) -> str:
    """The batch script.

    Args:
      job: `launch/train.py` or `launch/evaluate.py`, over all nodes; with `parts`, `launch/sweep.py`.
      nodes: the machines.
      parts: elements of the array, each of which runs its share of a sweep's cells; 0 for no array.

    Raises:
      UserError: if a part of a sweep is to have several nodes, or the partition is no name.
    """
    if not re.fullmatch(r"[\w.,-]*", nodes.partition):
        raise UserError(f"--partition={nodes.partition} is no name of a partition, nor several with commas")
    if parts and nodes.nodes > 1:
        raise UserError(f"--nodes={nodes.nodes} is too many, expected 1, as a part of a sweep runs on one")
    options = [
        f"--job-name={job.name}",
        f"--output={job.name}-%j.log",
        "--open-mode=append",
        f"--nodes={nodes.nodes}",
        # Where Slurm tells JAX of the other processes, each has one GPU.
        f"--ntasks-per-node={1 if parts else max(nodes.gpus, 1)}",
        f"--cpus-per-task={nodes.cpus}",
        f"--time={nodes.minutes}",
        "--requeue",
        f"--signal=TERM@{nodes.grace}",
    ]
    options += [f"--gpus-per-node={nodes.gpus}"] if nodes.gpus else []
    options += [f"--partition={nodes.partition}"] if nodes.partition else []
    options += [f"--array=0-{parts - 1}"] if parts else []
    more = ('--part="$SLURM_ARRAY_TASK_ID"', f"--parts={parts}") if parts else ("--distributed",)
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {option}" for option in options),
            "",
            f"cd {shlex.quote(str(ROOT))}",
            "# scancel reaches this script, and so does a preemption, after which Slurm queues the job again",
            "# by itself; the signal before the time is up reaches the processes alone.",
            "told=",
            "trap 'told=1' TERM",
            f"srun {shlex.quote(sys.executable)} {job.command(*more)}",
            "code=$?",
            f'if [ "$code" -eq {RESUME_CODE} ] && [ -z "$told" ]; then',
            '  scontrol requeue "$SLURM_JOB_ID"',
            "fi",
            'exit "$code"',
            "",
        ]
    )


def submit(text: str) -> list[Command]:
    """Commands that submit a batch script."""
    return [command("sbatch", text=text)]


def _logs(name: str) -> list[Command]:
    # The names of other jobs may start like this one's.
    line = f"logs=$(ls | grep -xE '{name}-[0-9]+[.]log') && tail -n 100 $logs"
    failure = f"no log of {name} here yet: call this in the folder where the job was submitted"
    return [command("sh", "-c", line, failure=failure)]


ACTIONS = {
    "list": lambda name: [command("squeue", "--me", f"--name={name}")],
    "logs": _logs,
    "stop": lambda name: [command("scancel", "--me", f"--name={name}")],
}
