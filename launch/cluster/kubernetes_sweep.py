"""Runs a sweep on a Kubernetes cluster: an indexed Job, whose pods run a part each.

    python launch/cluster/kubernetes_sweep.py --name=NAME --image=IMAGE [--claim=CLAIM] --parts=N \\
        --job="launch/sweep.py --config=FILE --workdir=/shared/DIR or gs://BUCKET/DIR"
    python launch/cluster/kubernetes_sweep.py --name=NAME --list | --logs | --stop

The image's working directory is a checkout with the package installed; the claim is a volume that all pods
may write, mounted at /shared, which a --workdir at gs:// does not need. A part that was stopped or evicted
starts again and goes on. --dry-run prints the manifest.
"""

from absl import flags

from suan_jax import cli
from suan_jax.cluster import actions, kubernetes
from suan_jax.cluster.job import IN_PARTS
from suan_jax.cluster.shell import Command

actions.define_flags("launch/sweep.py with its flags; --part and --parts are added")
_IMAGE = flags.DEFINE_string("image", "", "image of the container")
_CLAIM = flags.DEFINE_string(
    "claim", "", "PersistentVolumeClaim, ReadWriteMany, mounted at /shared; none for gs://"
)
_PARTS = flags.DEFINE_integer("parts", 1, "number of parts", lower_bound=1)
_AT_ONCE = flags.DEFINE_integer("at_once", 16, "pods side by side", lower_bound=1)
_GPUS = flags.DEFINE_integer("gpus", 1, "GPUs of a pod; 0 for none", lower_bound=0)


def _start() -> list[Command]:
    job = actions.job(IN_PARTS)
    image, claim = actions.required(_IMAGE), actions.share(_CLAIM, job)
    return kubernetes.apply(
        kubernetes.indexed_job(job, image, claim, _PARTS.value, _AT_ONCE.value, _GPUS.value)
    )


def main(_) -> None:
    """Starts, or does what else was asked for."""
    actions.act(_start, kubernetes.JOB_ACTIONS)


if __name__ == "__main__":
    cli.run(main)
