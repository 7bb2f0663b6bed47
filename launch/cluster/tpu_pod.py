"""Trains on a Cloud TPU slice of one or many hosts, made for the job and made again when it is preempted.

    python launch/cluster/tpu_pod.py --name=NAME --zone=ZONE --accelerator=TYPE --version=IMAGE \\
        [--nfs=HOST:/PATH] --repository=URL [--commit=COMMIT] \\
        --job="launch/train.py --config=FILE --workdir=/shared/DIR or gs://BUCKET/DIR"
    python launch/cluster/tpu_pod.py --name=NAME --zone=ZONE --list | --logs | --stop

Makes the slice, mounts the NFS share at /shared, installs the package, starts the job on every host, and
watches it to its end; the same command again goes on watching. A --workdir at gs:// needs no share. --dry-run
prints the commands of gcloud, whose own settings say the project.
"""

from absl import flags

from suan_jax import cli
from suan_jax.cluster import actions, tpu_pod
from suan_jax.cluster.job import ON_ALL_HOSTS, Job

actions.define_flags("launch/train.py or launch/evaluate.py with its flags; --distributed is added")
_ZONE = flags.DEFINE_string("zone", None, "zone, such as us-west4-a", required=True)
_ACCELERATOR = flags.DEFINE_string("accelerator", "", "type of the slice, such as v5litepod-256")
_VERSION = flags.DEFINE_string("version", "", "image of its hosts, such as v2-alpha-tpuv5-lite")
_SPOT = flags.DEFINE_boolean("spot", True, "may be preempted, and costs less")
_NFS = flags.DEFINE_string("nfs", "", "share that every host mounts at /shared, HOST:/PATH")
_REPOSITORY = flags.DEFINE_string("repository", "", "URL from which git clones this package")
_COMMIT = flags.DEFINE_string("commit", "origin/main", "what git checks out")


def _job() -> Job:
    return actions.job(ON_ALL_HOSTS)


def _slice() -> tpu_pod.Slice:
    return tpu_pod.Slice(
        flags.FLAGS["name"].value,
        _ZONE.value,
        actions.required(_ACCELERATOR),
        actions.required(_VERSION),
        _SPOT.value,
        actions.share(_NFS, _job()),
        actions.required(_REPOSITORY),
        _COMMIT.value,
    )


def main(_) -> None:
    """Starts and watches, or does what else was asked for."""
    actions.act(
        lambda: tpu_pod.cycle(_slice(), _job()),
        tpu_pod.actions(_ZONE.value),
        lambda _: tpu_pod.supervise(_slice(), _job()),
    )


if __name__ == "__main__":
    cli.run(main)
