"""Trains on a TPU slice of a GKE cluster with the JobSet controller, a pod on each host.

    python launch/cluster/gke.py --name=NAME --image=IMAGE [--claim=CLAIM] --topology=AxB \\
        [--accelerator=TYPE] --job="launch/train.py --config=FILE --workdir=/shared/DIR or gs://BUCKET/DIR"
    python launch/cluster/gke.py --name=NAME --list | --logs | --stop

The image's working directory is a checkout with the package installed; the claim is a volume that all hosts
may write, mounted at /shared, which a --workdir at gs:// does not need. Preempted or stopped, the job starts
anew and goes on from its checkpoint. --dry-run prints the manifest.
"""

from absl import flags

from suan_jax import cli
from suan_jax.cluster import actions, kubernetes
from suan_jax.cluster.job import ON_ALL_HOSTS
from suan_jax.cluster.shell import Command

actions.define_flags("launch/train.py or launch/evaluate.py with its flags; --distributed is added")
_IMAGE = flags.DEFINE_string("image", "", "image of the container")
_CLAIM = flags.DEFINE_string(
    "claim", "", "PersistentVolumeClaim, ReadWriteMany, mounted at /shared; none for gs://"
)
_ACCELERATOR = flags.DEFINE_string("accelerator", "tpu-v5-lite-podslice", "label gke-tpu-accelerator")
_TOPOLOGY = flags.DEFINE_string("topology", "16x16", "label gke-tpu-topology: chips of the slice")
_CHIPS = flags.DEFINE_integer("chips", 4, "chips of a host", lower_bound=1)
_RESTARTS = flags.DEFINE_integer("restarts", 100, "how often the job starts anew at most", lower_bound=0)


def _start() -> list[Command]:
    job = actions.job(ON_ALL_HOSTS)
    image, claim = actions.required(_IMAGE), actions.share(_CLAIM, job)
    return kubernetes.apply(
        kubernetes.jobset(
            job, image, claim, _ACCELERATOR.value, _TOPOLOGY.value, _CHIPS.value, _RESTARTS.value
        )
    )


def main(_) -> None:
    """Starts, or does what else was asked for."""
    actions.act(_start, kubernetes.JOBSET_ACTIONS)


if __name__ == "__main__":
    cli.run(main)
