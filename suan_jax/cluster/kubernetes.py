"""Kubernetes: a JobSet over the hosts of a TPU slice, or the parts of a sweep as an indexed Job.

The image's working directory is a checkout with the package installed. What must outlive a pod lies on a
volume that all pods mount at /shared, or at gs://.
"""

from __future__ import annotations

import math
from typing import Any

import yaml

from suan_jax.cluster.job import MISTAKE_CODE, RESUME_CODE, SHARED, Job
from suan_jax.cluster.shell import Command, command
from suan_jax.errors import UserError

_CONTAINER = "job"
_GRACE = 120  # seconds that a stopped job has for saving
_COORDINATOR, _RUNTIME = 8476, 8471  # ports of JAX's and the TPU's own services


def jobset(
    job: Job, image: str, claim: str, accelerator: str, topology: str, chips: int, restarts: int
) -> dict[str, Any]:
    """A JobSet that runs a job on every host of a TPU slice.

    When a host is preempted, or the job ends with another exit code than 0, all hosts start anew and the
    job goes on from its checkpoint; a user's mistake ends it.

    Args:
      job: `launch/train.py` or `launch/evaluate.py`.
      image: the container's image.
      claim: PersistentVolumeClaim of the shared volume, ReadWriteMany; empty for none.
      accelerator: the node label cloud.google.com/gke-tpu-accelerator.
      topology: the node label cloud.google.com/gke-tpu-topology, such as "16x16".
      chips: chips of a host.
      restarts: how often it starts anew at most.

    Raises:
      UserError: if the topology is no product that `chips` divides.
    """
    hosts = _hosts(topology, chips)
    pod = _pod(job.command("--distributed"), image, claim, {"google.com/tpu": chips})
    pod["nodeSelector"] = {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology,
    }
    pod["containers"][0]["ports"] = [{"containerPort": port} for port in (_RUNTIME, _COORDINATOR)]
    template = {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [_on_exit(MISTAKE_CODE, "FailJob")]},
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": job.name,
            # One slice, and no other job on it.
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {
                "maxRestarts": restarts,
                "rules": [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
            },
            "replicatedJobs": [{"name": "slice", "replicas": 1, "template": {"spec": template}}],
        },
    }


def indexed_job(job: Job, image: str, claim: str, parts: int, at_once: int, gpus: int) -> dict[str, Any]:
    """An indexed Job that runs the parts of a sweep, a pod each.

    A part that was stopped, preempted or evicted starts again and goes on where it was; one that fails for
    another reason is tried three times, and a user's mistake is not tried again.

    Args:
      job: `launch/sweep.py`.
      image: the container's image.
      claim: PersistentVolumeClaim of the shared volume, ReadWriteMany; empty for none.
      parts: number of parts.
      at_once: pods that run side by side.
      gpus: GPUs of a pod; 0 for none.
    """
    share = ('--part="$JOB_COMPLETION_INDEX"', f"--parts={parts}")
    pod = _pod(job.command(*share), image, claim, {"nvidia.com/gpu": gpus} if gpus else {})
    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job.name},
        "spec": {
            "completions": parts,
            "parallelism": min(parts, at_once),
            "completionMode": "Indexed",
            "backoffLimitPerIndex": 2,
            "podFailurePolicy": {
                "rules": [_on_exit(RESUME_CODE, "Ignore"), _on_exit(MISTAKE_CODE, "FailIndex"), disrupted]
            },
            "template": {"spec": pod},
        },
    }


def apply(manifest: dict[str, Any]) -> list[Command]:
    """Commands that create what a manifest describes."""
    return [command("kubectl", "create", "--filename=-", text=yaml.safe_dump(manifest, sort_keys=False))]


def _hosts(topology: str, chips: int) -> int:
    try:
        sizes = [int(size) for size in topology.split("x")]
    except ValueError:
        sizes = [0]
    total = math.prod(sizes)
    if min(sizes) < 1 or total % chips:
        raise UserError(f"--topology={topology} is no grid of hosts with {chips} chips, such as 16x16")
    return total // chips


def _pod(line: str, image: str, claim: str, devices: dict[str, int]) -> dict[str, Any]:
    """A pod that runs a line of shell; `exec` lets the signal that stops the pod reach the job itself."""
    container = {
        "name": _CONTAINER,
        "image": image,
        "command": ["sh", "-c", f"exec python {line}"],
        "env": [{"name": "SUAN_JAX_IMAGE", "value": image}],
        "resources": {"limits": devices},
    }
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": _GRACE, "containers": [container]}
    if claim:
        container["volumeMounts"] = [{"name": "shared", "mountPath": SHARED}]
        pod["volumes"] = [{"name": "shared", "persistentVolumeClaim": {"claimName": claim}}]
    return pod


def _on_exit(code: int, action: str) -> dict[str, Any]:
    rule = {"containerName": _CONTAINER, "operator": "In", "values": [code]}
    return {"action": action, "onExitCodes": rule}


def _by_label(label: str, kind: str, first: str = "") -> dict[str, Any]:
    """The actions on what a label selects; `first` narrows the pods whose logs are shown."""

    def selector(name: str, more: str = "") -> str:
        return f"--selector={label}={name}{more}"

    return {
        "list": lambda name: [
            command("kubectl", "get", kind, name),
            command("kubectl", "get", "pods", selector(name)),
        ],
        "logs": lambda name: [
            command(
                "kubectl", "logs", selector(name, first), "--prefix", "--tail=100", "--max-log-requests=100"
            )
        ],
        "stop": lambda name: [command("kubectl", "delete", kind, name)],
    }


JOBSET_ACTIONS = _by_label(
    "jobset.sigs.k8s.io/jobset-name", "jobset", ",batch.kubernetes.io/job-completion-index=0"
)
JOB_ACTIONS = _by_label("batch.kubernetes.io/job-name", "job")
