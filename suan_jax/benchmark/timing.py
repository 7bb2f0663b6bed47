"""Times of functions that run on a device, taken in turns so that their ratios survive a busy machine."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from suan_jax.benchmark.programs import Name, reason

_WARM_UP = 2  # the first call compiles
_REPEAT_SECONDS = 0.05  # a repeat lasts at least so long: short calls are dispatched while others run


@dataclasses.dataclass(frozen=True)
class Timing:
    """What repeats of one function took.

    Attributes:
      seconds: (repeats,) float64, seconds of a call in each repeat.
    """

    seconds: np.ndarray

    def median(self) -> float:
        """Seconds of a call."""
        return float(np.median(self.seconds))

    def fields(self) -> dict[str, float]:
        """The median and the quartiles in milliseconds, for a row."""
        low, middle, high = np.quantile(self.seconds, (0.25, 0.5, 0.75)) * 1e3
        return {"ms": float(middle), "ms_low": float(low), "ms_high": float(high)}

    def __sub__(self, other: Timing) -> Timing:
        """How much longer each repeat took than the one of `other` in the same turn."""
        return Timing(self.seconds - other.seconds)

    def ratio(self, other: Timing) -> float:
        """How many times as long as `other`, timed in the same turns: the median over the repeats' ratios."""
        return float(np.median(self.seconds / other.seconds))


def interleaved(calls: Mapping[Name, Callable[[int], Any]], repeats: int) -> dict[Name, Timing]:
    """Times functions in turns: a repeat of each, then the next repeat of each.

    Args:
      calls: name to a function of the number of its call, from 0 on, which picks its input; it returns the
        arrays to wait for.
      repeats: measurements of each.

    Returns:
      Name to its timing.
    """
    turns = {name: _Turn(call) for name, call in calls.items()}
    for turn in turns.values():
        turn.warm_up()
    return _in_turns(turns, repeats)


def interleaved_if_able(
    calls: Mapping[Name, Callable[[int], Any]], repeats: int
) -> tuple[dict[Name, Timing], dict[Name, str]]:
    """`interleaved` of the functions whose first calls succeed, and why the others' do not."""
    turns, reasons = {}, {}
    for name, call in calls.items():
        turn = _Turn(call)
        try:
            turn.warm_up()
        except Exception as error:  # most often, out of memory
            reasons[name] = reason(error)
        else:
            turns[name] = turn
    return _in_turns(turns, repeats), reasons


def _in_turns(turns: Mapping[Name, _Turn], repeats: int) -> dict[Name, Timing]:
    for _ in range(repeats):
        for turn in turns.values():
            turn.repeat()
    return {name: Timing(np.array(turn.seconds)) for name, turn in turns.items()}


class _Turn:
    """One function, the number of its next call, and its times."""

    def __init__(self, call: Callable[[int], Any]):
        self._call, self._next, self._calls = call, 0, 1
        self.seconds: list[float] = []

    def warm_up(self) -> None:
        """Compiles, and chooses how many calls make a repeat."""
        for _ in range(_WARM_UP):
            seconds = self._run()
        self._calls = max(1, math.ceil(_REPEAT_SECONDS / seconds))

    def repeat(self) -> None:
        """Takes one measurement."""
        self.seconds.append(self._run() / self._calls)

    def _run(self) -> float:
        start = time.perf_counter()
        for _ in range(self._calls):
            result = self._call(self._next)
            self._next += 1
        jax.block_until_ready(result)
        return time.perf_counter() - start
