"""Trains on several nodes of a Slurm cluster, or runs a sweep there as an array.

    python launch/cluster/slurm.py --name=NAME --nodes=N --gpus=G \\
        --job="launch/train.py --config=FILE --workdir=/DIR"
    python launch/cluster/slurm.py --name=NAME --parts=N --gpus=1 \\
        --job="launch/sweep.py --config=FILE --workdir=/DIR"
    python launch/cluster/slurm.py --name=NAME --list | --logs | --stop

Every node runs this checkout with this interpreter. Two minutes before its time is up the job saves, and is
queued again, as it is after a preemption; NAME-JOB.log, beside where this was called, has what it printed.
--dry-run prints the batch script.
"""

from absl import flags

from suan_jax import cli
from suan_jax.cluster import actions, slurm
from suan_jax.cluster.job import IN_PARTS, ON_ALL_HOSTS

actions.define_flags("launch/train.py or launch/evaluate.py with its flags; with --parts launch/sweep.py")
_NODES = flags.DEFINE_integer("nodes", 1, "nodes; of each part of a sweep, 1", lower_bound=1)
_GPUS = flags.DEFINE_integer("gpus", 0, "GPUs of a node, each with a process; 0 for none", lower_bound=0)
_CPUS = flags.DEFINE_integer("cpus", 8, "processors of a process", lower_bound=1)
_MINUTES = flags.DEFINE_integer("minutes", 24 * 60, "longest time before it is queued again", lower_bound=5)
_PARTITION = flags.DEFINE_string("partition", "", "partition; Slurm's own choice if not given")
_PARTS = flags.DEFINE_integer("parts", 0, "parts of a sweep; 0 for a job that is no sweep", lower_bound=0)


def main(_) -> None:
    """Starts, or does what else was asked for."""
    nodes = slurm.Nodes(_NODES.value, _GPUS.value, _CPUS.value, _MINUTES.value, _PARTITION.value)
    files = IN_PARTS if _PARTS.value else ON_ALL_HOSTS
    actions.act(lambda: slurm.submit(slurm.script(actions.job(files), nodes, _PARTS.value)), slurm.ACTIONS)


if __name__ == "__main__":
    cli.run(main)
