"""The flags that all launchers share, and what they ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from absl import flags

from suan_jax.cluster import shell
from suan_jax.cluster.job import Job, check_name, parse_job
from suan_jax.cluster.shell import Command
from suan_jax.errors import UserError

flags.disclaim_key_flags()

_SHARED = ("name", "job", "dry-run", "list", "logs", "stop")


def define_flags(jobs: str) -> None:
    """Defines the shared flags as those of the launch file that calls.

    Args:
      jobs: what --job may be, for its help.
    """
    flags.DEFINE_string("name", None, "name of the job on the cluster", required=True)
    flags.DEFINE_string("job", "", jobs)
    flags.DEFINE_boolean("dry-run", False, "print the commands, and run none")
    flags.DEFINE_boolean("list", False, "show how the job of this name stands, and start none")
    flags.DEFINE_boolean("logs", False, "show what it printed")
    flags.DEFINE_boolean("stop", False, "end it, and give its machines back")
    for name in _SHARED:
        flags.declare_key_flag(name)


def job(files: tuple[str, ...]) -> Job:
    """The job that --name and --job describe, one of the launch `files`.

    Raises:
      UserError: as `parse_job`.
    """
    return parse_job(flags.FLAGS["name"].value, flags.FLAGS["job"].value, files)


def required(flag: flags.FlagHolder[str]) -> str:
    """The value of a flag that starting a job needs, and listing it does not.

    Raises:
      UserError: if it is missing.
    """
    if not flag.value:
        raise UserError(f"--{flag.name} is missing: {flags.FLAGS[flag.name].help}")
    return flag.value


def share(flag: flags.FlagHolder[str], job: Job) -> str:
    """The value of a flag that names what all machines mount, which a job needs unless it works at gs://.

    Raises:
      UserError: if it is needed and missing.
    """
    return flag.value if job.is_remote else required(flag)


def act(
    start: Callable[[], Sequence[Command]],
    actions: dict[str, Callable[[str], Sequence[Command]]],
    run: Callable[[Sequence[Command]], None] = shell.run,
) -> None:
    """Does what the flags ask for, or prints the commands that would.

    Args:
      start: the commands that start the job.
      actions: "list", "logs" and "stop" to their commands, by the name of the job.
      run: how the commands of `start` are run.

    Raises:
      UserError: if two things are asked for, the name is none, or a command fails.
    """
    asked = [name for name in actions if flags.FLAGS[name].value]
    if len(asked) > 1:
        raise UserError(f"--{asked[0]} and --{asked[1]} are given, expected one of them")
    name = flags.FLAGS["name"].value
    check_name(name)
    commands = actions[asked[0]](name) if asked else start()
    if flags.FLAGS["dry-run"].value:
        shell.show(commands)
    elif asked:
        shell.run(commands)
    else:
        run(commands)
