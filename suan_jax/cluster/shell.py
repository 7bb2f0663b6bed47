"""The commands of a cluster's own tools, run or shown."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
from collections.abc import Iterable

from suan_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that the machine of its user runs.

    Attributes:
      words: the program and its arguments.
      text: its standard input.
      failure: what it means if it fails, a sentence; empty to say no more than that it did.
    """

    words: tuple[str, ...]
    text: str = ""
    failure: str = ""

    def __str__(self) -> str:
        """As typed in a shell."""
        line = shlex.join(self.words)
        return f"{line} <<'END'\n{self.text}END" if self.text else line


def command(*words: str, text: str = "", failure: str = "") -> Command:
    """A `Command`."""
    return Command(words, text, failure)


def show(commands: Iterable[Command]) -> None:
    """Prints commands as a shell script."""
    for each in commands:
        print(each)


def run(commands: Iterable[Command]) -> None:
    """Runs commands one after another; what they print is seen.

    Raises:
      UserError: if a program is missing, or fails.
    """
    for each in commands:
        code = _start(each).returncode
        if code:
            raise UserError(each.failure or f"{' '.join(each.words[:4])} … failed with exit code {code}")


def succeeds(each: Command) -> bool:
    """Whether a command ends with exit code 0; what it prints is seen.

    Raises:
      UserError: if the program is missing.
    """
    return _start(each).returncode == 0


def answer(each: Command) -> str:
    """What a command prints, without the space around it; empty if it fails.

    Raises:
      UserError: if the program is missing.
    """
    done = _start(each, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return "" if done.returncode else done.stdout.strip()


def _start(each: Command, **pipes: int) -> subprocess.CompletedProcess[str]:
    # With no input of its own a command must not read the terminal: ssh would.
    source = {"input": each.text} if each.text else {"stdin": subprocess.DEVNULL}
    try:
        return subprocess.run(each.words, text=True, check=False, **source, **pipes)
    except FileNotFoundError as error:
        raise UserError(
            f"{each.words[0]} is not installed on this machine: call this where the cluster's own tools are"
        ) from error
