"""How much a run trained, and how fast, with compilation, evaluation and saving left out of the time."""

from __future__ import annotations

import dataclasses
import time


@dataclasses.dataclass
class Clock:
    """Times the steps that follow another step at once.

    Attributes:
      examples: examples of the timed steps, over the whole run.
      seconds: the time they took.
      trained: examples of all steps, timed or not.
    """

    examples: int = 0
    seconds: float = 0.0
    trained: int = 0

    def __post_init__(self) -> None:
        self._previous: float | None = None
        self._row = (self.examples, self.seconds)

    def step(self, examples: int) -> None:
        """A step over `examples` has just ended. The first after `pause` only starts the watch."""
        now = time.perf_counter()
        self.trained += examples
        if self._previous is not None:
            self.examples += examples
            self.seconds += now - self._previous
        self._previous = now

    def to_dict(self) -> dict[str, float]:
        """What a resumed run goes on from, JSON-ready: the arguments of a new clock."""
        return dataclasses.asdict(self)

    def pause(self) -> None:
        """Something other than a step follows."""
        self._previous = None

    def examples_per_second(self) -> float | None:
        """The rate since this was last asked; None if no step was timed since."""
        examples, seconds = self.examples - self._row[0], self.seconds - self._row[1]
        self._row = (self.examples, self.seconds)
        return examples / seconds if seconds else None
