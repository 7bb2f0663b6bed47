"""The job that a cluster is to run: one of the launch files, with its flags."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

from suan_jax.errors import Preempted, UserError

ROOT = Path(__file__).absolute().parents[2]
"""The checkout, whose `launch/` holds the jobs."""

RESUME_CODE = Preempted.exit_code  # also of what was not reached: the job wants to be repeated
MISTAKE_CODE = UserError.exit_code  # which repeating does not mend

SHARED = "/shared"
"""Where machines mount the disk that they share."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A job by its name on the cluster.

    Attributes:
      name: name of what the cluster runs.
      words: the launch file, relative to the checkout, and its flags.
    """

    name: str
    words: tuple[str, ...]

    @property
    def is_remote(self) -> bool:
        """Whether its work directory is at gs://."""
        return any(word.startswith("--workdir=gs://") for word in self.words)

    def command(self, *more: str) -> str:
        """A line for a shell, without the interpreter; `more` words go on as they are, variables and all."""
        return " ".join([shlex.join(self.words), *more])


ON_ALL_HOSTS = ("launch/train.py", "launch/evaluate.py")
"""The launch files that run as one job over several processes."""

IN_PARTS = ("launch/sweep.py",)
"""Those that run as parts side by side."""


_BY_LAUNCHERS = ("part", "parts", "coordinator", "processes", "process")
"""Flags of those files that the launchers give themselves, or that what they give excludes."""


def check_name(name: str) -> None:
    """Checks that all clusters, and the shells on the way to them, take a name as no more than that.

    Raises:
      UserError: if not.
    """
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", name):
        raise UserError(
            f"--name={name} is not a name on a cluster, expected at most 40 lower-case letters, digits and "
            "hyphens that start with a letter"
        )


def parse_job(name: str, text: str, files: tuple[str, ...]) -> Job:
    """A job from its command line.

    Args:
      name: lower-case letters, digits and hyphens, as all clusters take.
      text: such as "launch/train.py --config=configs/suan.py --workdir=/shared/runs/suan".
      files: launch files that can be run there.

    Raises:
      UserError: if a cluster does not take the name, the file is none of `files`, the work directory would be
        another on every machine, a flag is the launcher's own, or the config is not there.
    """
    check_name(name)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(
            f"--job={text} cannot be split into words ({error}), expected its quotes in pairs"
        ) from error
    if not words or words[0] not in files:
        raise UserError(f"--job={text} starts with no job for this, expected {' or '.join(files)}")
    workdirs = [word.partition("=")[2] for word in words if word.startswith("--workdir=")]
    if len(workdirs) != 1 or not workdirs[0].startswith(("/", "gs://")):
        raise UserError(
            f"--job={text} has no --workdir=/PATH, an absolute path on a disk that all machines share, and no --workdir=gs://BUCKET/PATH"
        )
    for word in words:
        if word.startswith("--") and word[2:].partition("=")[0] in _BY_LAUNCHERS:
            raise UserError(f"--job={text} has {word}, which is for the launcher to give")
        if word.startswith("--config="):
            _check_config(word.removeprefix("--config=").partition(":")[0])
    return Job(name, tuple(words))


def _check_config(file: str) -> None:
    """Checks that a config of the checkout, which the machines have too, is there."""
    here = (Path(file), ROOT / file)
    if not Path(file).is_absolute() and (ROOT / "launch").is_dir() and not any(map(Path.is_file, here)):
        raise UserError(f"--config={file} of --job is no file here nor in {ROOT}")
