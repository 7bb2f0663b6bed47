"""Being told to stop: SIGTERM ends a job at the next safe point, with its state saved."""

from __future__ import annotations

import itertools
import signal
import threading
from types import FrameType

from jax.experimental import multihost_utils

from suan_jax.processes import is_several

# One count for all contexts of a process, as JAX compares it with those of the other processes.
_points = itertools.count(1)


class StopSignal:
    """Remembers a SIGTERM that arrives while the context is open.

    Outside the main thread, where Python takes no signal handlers, it never sees one. Of several processes,
    a signal to any is seen by all at the same point, for which all must look equally often: JAX, which takes
    the signal then, agrees with the others on the next point that none has passed.
    """

    def __init__(self) -> None:
        self._received = False
        self._previous: signal.Handlers | None = None

    @property
    def received(self) -> bool:
        """Whether to stop here."""
        if is_several() and not self._received:
            self._received = multihost_utils.reached_preemption_sync_point(next(_points))
        return self._received

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread() and not is_several():
            self._previous = signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self._received = True
