"""Which impressions share a row: one history with up to M candidates.

"none" gives each impression a row of its own. "request" joins a user's impressions of one moment, which see
the same events: each scores as it does alone. "time" joins a user's consecutive impressions: the row holds
the events that its last candidate sees, `max_len` of them at most, and each candidate sees those of them that
lie before it. An earlier candidate so sees fewer events than it would alone; a row ends before an impression
whose presence would leave its first candidate less than the share `least_history` of them.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from suan_jax.config import DataConfig
from suan_jax.config_check import check_packing
from suan_jax.data.block import Block, Log
from suan_jax.data.selection import Examples, impressions, select, train_selection


@dataclasses.dataclass(frozen=True)
class Packing:
    """How impressions are joined; the fields are those of `DataConfig`, `how` its `packing`."""

    how: str = "none"
    candidates: int = 1
    max_len: int = 1
    least_history: float = 0.0


class Rows:
    """The rows that a selection's impressions are packed into, each impression in exactly one.

    Attributes:
      log: the log.
      counts: (num_blocks,) int64, rows of each block.
      total: their sum.
      candidates: M, candidate slots of a row.
    """

    def __init__(self, examples: Examples, packing: Packing):
        """Scans the impressions of the log once, unless each has a row of its own."""
        self._examples, self._packing = examples, packing
        self.log, self.candidates = examples.log, packing.candidates
        self.counts = examples.counts
        if packing.how != "none":
            self.counts = np.zeros_like(examples.counts)
            for index in np.flatnonzero(examples.counts):
                self.counts[index] = len(self.rows(index, impressions(self.log, int(index))))
        self.total = int(self.counts.sum())

    def rows(self, index: int, block: Block) -> np.ndarray:
        """Indices of the impressions in each row of the block at `index`, (n, M) int64.

        A row's impressions ascend, and -1 fills the slots behind them.
        """
        return pack(block, self._examples.rows(index, block), self._packing)


def training_rows(log: Log, data: DataConfig) -> Rows:
    """The rows that a run with these settings trains on; those made last are remembered.

    Raises:
      UserError: naming the field that is out of range, or if no impression is kept.
    """
    check_packing(data)
    packing = Packing(data.packing, data.candidates, data.max_len, data.least_history)
    return _rows(select(log, train_selection(data)), packing)


_rows = functools.lru_cache(maxsize=8)(Rows)  # a scan of a large log takes minutes


def pack(block: Block, chosen: np.ndarray, packing: Packing) -> np.ndarray:
    """The rows of some impressions of a block, (n, M) int64 as `Rows.rows`.

    Args:
      block: the block; its events are not read.
      chosen: (k,) indices of impressions, ascending.
      packing: how they are joined. Rows are filled from a user's first impression on, each as far as it goes.
    """
    if packing.how == "none":
        return chosen[:, None]
    sequence = np.searchsorted(block.impression_offsets, chosen, side="right") - 1
    time, visible = block.time[chosen], block.visible[chosen]
    apart = np.diff(sequence) > 0
    if packing.how == "request":
        apart |= (np.diff(time) > 0) | (np.diff(visible) != 0)
    else:
        apart |= np.diff(visible) < 0  # where impressions came with histories, a later one may have a shorter
    is_first = np.concatenate([[True], apart])[: len(chosen)]
    group = np.cumsum(is_first)
    stop = end = np.searchsorted(group, group, side="right")
    if packing.how == "time":
        least = np.ceil(packing.least_history * np.minimum(visible, packing.max_len)).astype(np.int64)
        # A last candidate that sees v events starts the row at event v - max_len.
        reach = visible - least + packing.max_len
        span = reach.max(initial=0) + 1
        end = np.searchsorted(group * span + visible, group * span + reach, side="right")
    end = np.minimum(end, np.arange(len(chosen)) + packing.candidates)
    # From row to row, in all groups at once.
    firsts, current = [np.zeros(0, np.int64)], np.flatnonzero(is_first)
    while len(current):
        firsts.append(current)
        current = end[current][end[current] < stop[current]]
    first = np.sort(np.concatenate(firsts))
    member = first[:, None] + np.arange(packing.candidates)
    return np.where(member < end[first][:, None], chosen.take(member, mode="clip"), -1)
