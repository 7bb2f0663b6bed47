"""Being told to stop: SIGTERM ends a job at the next safe point, with its state saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopSignal:
    """Remembers a SIGTERM that arrives while the context is open.

    Outside the main thread, where Python takes no signal handlers, it never sees one.
    """

    def __init__(self) -> None:
        self.received = False
        self._previous: signal.Handlers | None = None

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self.received = True
