"""How far a job is: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator

import rich.console
from rich import progress as rich_progress

from suan_jax.processes import is_first

_INTERVAL = 10.0  # seconds between plain lines
_MEASURABLE = 0.01  # seconds; a step that is only under way is reported in less


class Progress:
    """Counts what is done; see `progress`."""

    def __init__(self, total: int | None, description: str, initial: int) -> None:
        self.done = initial
        self._total, self._description, self._initial = total, description, initial
        self._note = ""
        self._start = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Reports `count` more units done; a `note`, such as the loss, stays until the next one."""
        self.done += count
        self._note = note or self._note

    def restart_clock(self) -> None:
        """What was done so far counts no more for the rate, as its first unit was compiled too."""
        self._initial, self._start = self.done, time.monotonic()

    def rate(self) -> float:
        """Units per second since the start, what was done before left out; 0 before that can be told."""
        elapsed = time.monotonic() - self._start
        return (self.done - self._initial) / elapsed if elapsed >= _MEASURABLE else 0.0

    def line(self) -> str:
        """The state in words: "training: 1200/5000 (24 %), 350/s, 0:00:11 left, loss 0.31"."""
        parts = [f"{self._description}: {self.done}"]
        if self._total:
            parts[0] += f"/{self._total} ({100 * self.done // self._total} %)"
        rate = self.rate()
        if rate:
            parts.append(f"{rate:.3g}/s" if rate < 100 else f"{rate:.0f}/s")
        if self._total and rate:
            left = max(self._total - self.done, 0) / rate
            parts.append(f"{datetime.timedelta(seconds=round(left))} left")
        return ", ".join([*parts, *filter(None, [self._note])])


class _Lines(Progress):
    """Prints its line every `_INTERVAL` seconds."""

    def __init__(self, console: rich.console.Console, *args) -> None:
        super().__init__(*args)
        self._console, self._printed, self._shown = console, self._start, -1

    def advance(self, count: int = 1, note: str = "") -> None:
        super().advance(count, note)
        if time.monotonic() - self._printed >= _INTERVAL:
            self.print()

    def print(self) -> None:
        """Prints the state, unless that is what was printed last."""
        if self.done == self._shown:
            return
        self._printed, self._shown = time.monotonic(), self.done
        self._console.print(self.line(), markup=False, highlight=False, soft_wrap=True)


class _Bar(Progress):
    """Draws a bar; the rate and the time left follow the last half minute."""

    def __init__(self, console: rich.console.Console, *args) -> None:
        super().__init__(*args)
        self.display = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[rate]}", markup=False),
            rich_progress.TimeRemainingColumn(),
            rich_progress.TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )
        self._task = self.display.add_task(
            self._description, total=self._total, completed=self.done, rate="", note=""
        )

    def advance(self, count: int = 1, note: str = "") -> None:
        super().advance(count, note)
        speed = self.display.tasks[self._task].speed
        self.display.update(
            self._task, advance=count, rate=f"{speed:.3g}/s" if speed else "", note=self._note
        )


@contextlib.contextmanager
def progress(
    total: int | None,
    description: str,
    initial: int = 0,
    console: rich.console.Console | None = None,
) -> Iterator[Progress]:
    """Shows how far a job is, on standard error, so that results can be piped on; of several processes once.

    Args:
      total: units of the whole job; None if that is not known.
      description: what is being done.
      initial: units that were done before, by a run that this one resumes.
      console: where it is shown; standard error unless given.

    Yields:
      A `Progress`, whose `advance()` is called after every unit.
    """
    console = console or rich.console.Console(stderr=True)
    if not is_first():
        yield Progress(total, description, initial)
    elif console.is_terminal:
        bar = _Bar(console, total, description, initial)
        with bar.display:
            yield bar
    else:
        lines = _Lines(console, total, description, initial)
        yield lines
        lines.print()
