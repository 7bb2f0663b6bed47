"""What befalls a job, one function per fault; each acts at a random point and mends the outside world again.

After it the same command is repeated, undisturbed, and must come to the undisturbed result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.faults.jobs import Job
from tests.training import runs

_PATIENCE = 300  # seconds
_SCHEDULER = 4  # seconds that other processes have to end after one did, before they are killed


@dataclasses.dataclass
class Trial:
    """One fault and one job: `seconds` is how long the job takes, and `ends` how disturbed starts ended."""

    job: Job
    random: np.random.Generator
    seconds: float
    stack: contextlib.ExitStack
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    ends: list[subprocess.CompletedProcess] = dataclasses.field(default_factory=list)

    def start(self, **environment: str) -> list[runs.Job]:
        return self.job.start(**self.environment, **environment)

    def start_and_wait(self) -> list[runs.Job]:
        """Starts the job, and returns at a random point of the time that it takes, or when it has ended."""
        jobs = self.start()
        self.wait(jobs, self.random.uniform(0, self.seconds))
        return jobs

    def wait(self, jobs: list[runs.Job], seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(job.process.poll() is None for job in jobs):
            time.sleep(0.005)

    def end(self, jobs: list[runs.Job]) -> None:
        self.ends += [job.end(_PATIENCE) for job in jobs]

    def kill(self, jobs: list[runs.Job]) -> None:
        for job in jobs:
            job.process.kill()
        self.end(jobs)

    def run(self, fault: str = "") -> None:
        """Runs the job to its end, with a fault of planted.py."""
        self.end(self.start(FAULT=fault))

    def mount(self) -> None:
        """Makes the disk of the job a file system of its own."""
        _mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(self.job.disk))
        self.stack.callback(subprocess.run, ["umount", str(self.job.disk)], check=True)


def killed(trial: Trial) -> None:
    trial.kill(trial.start_and_wait())


def killed_while_compiling(trial: Trial) -> None:
    trial.environment["JAX_COMPILATION_CACHE_DIR"] = str(trial.job.folder / "xla")
    killed(trial)


def terminated(trial: Trial) -> None:
    jobs = trial.start_and_wait()
    jobs[trial.random.integers(len(jobs))].process.terminate()
    if len(jobs) > 1:  # one that was stopped before it had found the others leaves them waiting
        trial.wait(jobs, 5 * _SCHEDULER)
        trial.kill(jobs)
    else:
        trial.end(jobs)


def paused(trial: Trial) -> None:
    (job,) = trial.start_and_wait()
    job.process.send_signal(signal.SIGSTOP)
    time.sleep(trial.random.uniform(0.1, 2))
    job.process.send_signal(signal.SIGCONT)
    trial.end([job])


def one_killed(trial: Trial) -> None:
    jobs = trial.start_and_wait()
    jobs[trial.random.integers(len(jobs))].process.kill()
    trial.wait(jobs, _SCHEDULER)
    trial.kill(jobs)


def full_disk(trial: Trial) -> None:
    trial.mount()
    jobs = trial.start_and_wait()
    ballast = trial.job.disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    trial.end(jobs)
    ballast.unlink()


def file_size_limit(trial: Trial) -> None:
    (job,) = trial.start_and_wait()
    limit = int(2 ** trial.random.uniform(0, 16))
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(job.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    trial.end([job])


def read_only(trial: Trial) -> None:
    trial.mount()
    killed(trial)
    _mount("-o", "remount,ro", str(trial.job.disk))
    trial.run()
    _mount("-o", "remount,rw", str(trial.job.disk))


def damaged_store(trial: Trial) -> None:
    killed(trial)
    damage(trial.job.store, trial.random)
    trial.run()
    trial.job.put_store_back()


def damaged_checkpoint(trial: Trial) -> None:
    jobs = trial.start_and_wait()
    while trial.job.newest_checkpoint() is None and jobs[0].process.poll() is None:
        time.sleep(0.005)
    trial.kill(jobs)
    if newest := trial.job.newest_checkpoint():  # none if the job has finished
        damage(newest, trial.random)


def failed_read(trial: Trial) -> None:
    trial.run(f"disk:{trial.random.integers(1, 12)}")


def dead_worker(trial: Trial) -> None:
    trial.run(f"memory:{trial.random.integers(1, 80)}")


def nan_in_a_batch(trial: Trial) -> None:
    trial.run(f"nan:{trial.random.integers(1, 80)}")


def clock_turned_back(trial: Trial) -> None:
    trial.run(f"clock:{trial.random.uniform(0, trial.seconds)}")


def damage(folder: Path, random: np.random.Generator) -> None:
    """Truncates, removes, or flips a bit of, one of the files in a folder, a large one more likely."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = np.array([1 + path.stat().st_size for path in files])
    path = files[random.choice(len(files), p=sizes / sizes.sum())]
    content = bytearray(path.read_bytes())
    kind = random.choice(["truncated", "flipped", "removed"])
    if kind == "removed":
        path.unlink()
    elif kind == "truncated" or not content:
        path.write_bytes(content[: random.integers(len(content) + 1)])
    else:
        content[random.integers(len(content))] ^= 1 << random.integers(8)
        path.write_bytes(content)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@dataclasses.dataclass(frozen=True)
class Fault:
    """What befalls a job, and how that may end.

    Attributes:
      act: does it.
      jobs: names of the jobs it can befall.
      codes: exit codes that a disturbed start may have beside 0 (negative: the signal that ended it).
      cause: what one that ends with 2 must name, a regular expression.
    """

    act: Callable[[Trial], None]
    jobs: tuple[str, ...]
    codes: tuple[int, ...] = ()
    cause: str = ""


_TRAINS, _SEVERAL = ("train", "sweep", "distill"), ("processes",)
_ALL = (*_TRAINS, "prepare")
_KILL, _STOP, _ABORT = -signal.SIGKILL, (-signal.SIGTERM, 75), (1, -signal.SIGABRT)
FAULTS = (
    Fault(killed, _ALL, (_KILL,)),
    Fault(killed_while_compiling, _TRAINS, (_KILL,)),
    Fault(terminated, _ALL, _STOP),
    Fault(paused, _ALL),
    Fault(full_disk, _ALL, (2,), "^(?!.*damaged).*No space left on device"),
    Fault(file_size_limit, _ALL, (2,), "^(?!.*damaged).*File too large"),
    Fault(read_only, _ALL, (_KILL, 2), "Read-only file system|exists already"),
    Fault(damaged_store, _TRAINS, (_KILL, 2), "store"),
    Fault(damaged_checkpoint, _TRAINS, (_KILL,)),
    Fault(failed_read, _TRAINS, (2,), r"shard-\S+ cannot be read"),
    Fault(dead_worker, _TRAINS, (2,), "memory is not enough|MemoryError"),
    Fault(nan_in_a_batch, _TRAINS, (2,), "the loss is nan at step|not finite|NaN or infinite"),
    Fault(clock_turned_back, _ALL),
    Fault(one_killed, _SEVERAL, (_KILL, *_ABORT)),
    Fault(terminated, _SEVERAL, (*_STOP, _KILL, *_ABORT)),
)
