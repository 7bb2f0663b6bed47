"""Cloud TPU VMs: every host of a slice runs the job, as a service of its own.

A preempted slice is deleted and made again, and the job goes on from its checkpoint. What must outlive the
slice lies on an NFS share, such as Filestore's, that every host mounts at /shared.
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Sequence

from suan_jax.cluster import shell
from suan_jax.cluster.job import RESUME_CODE, SHARED, Job
from suan_jax.cluster.shell import Command, command
from suan_jax.errors import UserError
from suan_jax.notice import notice

_GONE = ("PREEMPTED", "TERMINATED", "STOPPED")
_POLL = 30  # seconds between two looks at what is still being made


@dataclasses.dataclass(frozen=True)
class Slice:
    """A TPU slice and what is installed on it.

    Attributes:
      name: its name.
      zone: such as us-west4-a.
      accelerator: such as v5litepod-256.
      version: of the VM's image, such as v2-alpha-tpuv5-lite.
      spot: whether it may be preempted, and costs less.
      nfs: the share, HOST:/PATH; empty for none.
      repository: URL that git clones.
      commit: what is checked out.
    """

    name: str
    zone: str
    accelerator: str
    version: str
    spot: bool
    nfs: str
    repository: str
    commit: str


def create(tpu: Slice) -> Command:
    """Makes the slice."""
    spot = ("--spot",) if tpu.spot else ()
    how = (f"--accelerator-type={tpu.accelerator}", f"--version={tpu.version}")
    return _gcloud("create", tpu.name, tpu.zone, *how, *spot)


def delete(name: str, zone: str) -> Command:
    """Gives the slice back."""
    return _gcloud("delete", name, zone, "--quiet")


def state(tpu: Slice) -> Command:
    """Says READY, PREEMPTED and so on; fails if there is no such slice."""
    return _gcloud("describe", tpu.name, tpu.zone, "--format=value(state)")


def install(tpu: Slice) -> Command:
    """Mounts the share and installs the package on every host; harmless where that is done."""
    share = [
        "sudo apt-get install --yes -q nfs-common",
        f"sudo mkdir -p {SHARED}",
        f"mountpoint -q {SHARED} || sudo mount {shlex.quote(tpu.nfs)} {SHARED}",
    ]
    lines = [
        "set -e",
        *(share if tpu.nfs else ()),
        f"test -d suan-jax || git clone -q {shlex.quote(tpu.repository)} suan-jax",
        "cd suan-jax",
        "git fetch -q",
        f"git checkout -q {shlex.quote(tpu.commit)}",
        "python3 -m pip install -q --user uv",
        "test -d venv || ~/.local/bin/uv venv -q --python=3.12 venv",
        "~/.local/bin/uv pip install -q --python=venv -e '.[tpu,gcs]'",
    ]
    return _on_hosts("all", tpu.name, tpu.zone, "\n".join(lines))


def start(tpu: Slice, job: Job) -> Command:
    """Starts the job on every host where it is not running; systemd repeats it when it was stopped."""
    properties = (
        "--property=User=$USER",
        "--property=WorkingDirectory=$HOME/suan-jax",
        f"--property=RestartForceExitStatus={RESUME_CODE}",
    )
    unit = f"sudo systemd-run --unit={tpu.name} {' '.join(properties)}"
    line = f"{unit} $HOME/suan-jax/venv/bin/python {job.command('--distributed')}"
    clean = f"sudo systemctl reset-failed {tpu.name} 2>/dev/null"
    return _on_hosts("all", tpu.name, tpu.zone, f"{_running(tpu.name)} || {{ {clean}; {line}; }}")


def wait(tpu: Slice) -> Command:
    """Returns when the job has ended on the first host; fails if it failed, or the host is gone."""
    loop = f"while {_running(tpu.name)}; do sleep {_POLL}; done"
    return _on_hosts("0", tpu.name, tpu.zone, f"{loop}; ! systemctl is-failed -q {tpu.name}")


def _running(name: str) -> str:
    # A service that waits to be repeated is "activating".
    return f"systemctl is-active {name} | grep -qxE 'active|activating|deactivating'"


def cycle(tpu: Slice, job: Job) -> list[Command]:
    """What `supervise` runs where no slice is preempted."""
    return [create(tpu), install(tpu), start(tpu, job), wait(tpu)]


def supervise(tpu: Slice, job: Job, poll: float = _POLL) -> None:
    """Sees a job to its end, through as many slices as that takes. Repeated, it goes on watching.

    Raises:
      UserError: if the job fails on a slice that is still there, or a command fails.
    """
    while True:
        while (now := shell.answer(state(tpu))) not in ("", "READY", *_GONE):
            time.sleep(poll)
        if now in _GONE:
            shell.run([delete(tpu.name, tpu.zone)])
        if now != "READY":
            shell.run([create(tpu)])
        ready = shell.succeeds(install(tpu)) and shell.succeeds(start(tpu, job))
        if ready and shell.succeeds(wait(tpu)):
            notice(f"{tpu.name} is done: give the slice back with --stop")
            return
        if shell.answer(state(tpu)) == "READY":
            raise UserError(f"{tpu.name} failed: --logs shows why, --stop gives its slice back")
        notice(f"{tpu.name} was preempted and is made again")


def actions(zone: str) -> dict:
    """The actions on a slice of this zone."""

    def logs(name: str) -> Sequence[Command]:
        return [_on_hosts("0", name, zone, f"sudo journalctl --unit={name} --lines=100 --output=cat")]

    return {
        "list": lambda name: [_gcloud("describe", name, zone)],
        "logs": logs,
        "stop": lambda name: [delete(name, zone)],
    }


def _gcloud(verb: str, name: str, zone: str, *options: str) -> Command:
    return command("gcloud", "compute", "tpus", "tpu-vm", verb, name, f"--zone={zone}", *options)


def _on_hosts(worker: str, name: str, zone: str, line: str) -> Command:
    return _gcloud("ssh", name, zone, f"--worker={worker}", f"--command={line}")
