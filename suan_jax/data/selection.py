"""Which impressions of a log a run sees: splits, nested fractions, kept negatives."""

from __future__ import annotations

import bisect
import collections
import dataclasses

import numpy as np

from suan_jax.config import DataConfig
from suan_jax.data.block import Block, Log
from suan_jax.data.store import Store
from suan_jax.errors import UserError
from suan_jax.schema import SPLITS

_TEST = SPLITS.index("test")


@dataclasses.dataclass(frozen=True)
class Selection:
    """A choice of impressions. Test impressions, if chosen, always stay whole.

    Attributes:
      splits: names of the splits chosen.
      fraction: share kept, in (0, 1]; a smaller share lies inside a larger one.
      fraction_by: "user" keeps the users with rank < fraction, "time" the latest impressions.
      negative_rate: share of the impressions without a click that is kept, in (0, 1], by a hash of user,
        time and position alone, so that a fraction's negatives lie inside a larger fraction's.
    """

    splits: tuple[str, ...]
    fraction: float = 1.0
    fraction_by: str = "user"
    negative_rate: float = 1.0

    def __post_init__(self):
        for split in self.splits:
            if split not in SPLITS:
                raise UserError(f"no split is named {split!r}, expected one of {', '.join(SPLITS)}")
        if not 0 < self.fraction <= 1:
            raise UserError(f"data.train_fraction is {self.fraction}, expected above 0 and at most 1")
        if self.fraction_by not in ("user", "time"):
            raise UserError(f"data.fraction_by is {self.fraction_by!r}, expected 'user' or 'time'")
        if not 0 < self.negative_rate <= 1:
            raise UserError(f"data.negative_rate is {self.negative_rate}, expected above 0 and at most 1")


def train_selection(data: DataConfig) -> Selection:
    """The impressions that a run with these settings trains on.

    Raises:
      UserError: naming the field that is out of range.
    """
    if data.train_on not in ("train", "train+validation"):
        raise UserError(f"data.train_on is {data.train_on!r}, expected 'train' or 'train+validation'")
    splits = tuple(data.train_on.split("+"))
    return Selection(splits, data.train_fraction, data.fraction_by, data.negative_rate)


class Examples:
    """The impressions of a log that a selection keeps.

    Attributes:
      log: the log.
      counts: (num_blocks,) int64, impressions kept in each block.
      total: their sum.
    """

    def __init__(self, log: Log, selection: Selection):
        """Scans as little of the log as the selection needs.

        Raises:
          UserError: if it keeps no impression.
        """
        self.log = log
        self._selection = selection
        self._splits = [SPLITS.index(split) for split in selection.splits]
        self._cut = np.iinfo(np.int64).min  # impressions before it are left out
        self._ties_out = np.zeros(log.num_blocks, np.int64)  # per block, its first ones at the cut left out
        if selection.fraction < 1 and selection.fraction_by == "time":
            self._find_cut()
        self.counts = self._count()
        self.total = int(self.counts.sum())
        if self.total == 0:
            raise UserError(
                f"{log} has no {' or '.join(selection.splits)} impression at fraction {selection.fraction} "
                f"and negative rate {selection.negative_rate}, expected at least one"
            )

    def rows(self, index: int, block: Block) -> np.ndarray:
        """Indices of the impressions kept in the block at `index`, ascending, (n,) int64."""
        keep = np.isin(block.split, self._splits)
        trimmed = block.split != _TEST
        sequence = np.repeat(np.arange(len(block.user)), np.diff(block.impression_offsets))
        if self._selection.fraction_by == "user":
            keep &= ~trimmed | (block.rank < self._selection.fraction)[sequence]
        else:
            at_cut = keep & trimmed & (block.time == self._cut)
            late = (block.time > self._cut) | (at_cut & (np.cumsum(at_cut) > self._ties_out[index]))
            keep &= ~trimmed | late
        if self._selection.negative_rate < 1:
            # Counted over all sequences of the user: where each has one impression they would share a fate.
            first = np.flatnonzero(np.diff(block.user, prepend=block.user[0] - 1))
            starts = block.impression_offsets[np.repeat(first, np.diff(first, append=len(block.user)))]
            position = np.arange(len(sequence)) - starts[sequence]
            kept = _uniform(block.user[sequence], block.time, position) < self._selection.negative_rate
            keep &= ~trimmed | (block.label > 0) | kept
        return np.flatnonzero(keep)

    def _count(self) -> np.ndarray:
        counts = sum(self.log.counts(split) for split in self._selection.splits).astype(np.int64)
        scanned = np.flatnonzero(counts)
        by_user = self._selection.fraction_by == "user"
        if by_user and self._selection.fraction < 1:
            # Users ascend by rank: one block straddles the fraction, those after it keep test impressions.
            edge = bisect.bisect_left(range(self.log.num_blocks), True, key=self._reaches_fraction)
            test = self.log.counts("test") if "test" in self._selection.splits else np.zeros_like(counts)
            counts[edge + 1 :] = test[edge + 1 :]
            scanned = scanned[scanned <= edge]
            if self._selection.negative_rate == 1:
                scanned = scanned[scanned == edge]
        elif self._selection.fraction == 1 and self._selection.negative_rate == 1:
            scanned = scanned[:0]
        for index in scanned:
            counts[index] = len(self.rows(index, impressions(self.log, int(index))))
        return counts

    def _reaches_fraction(self, index: int) -> bool:
        last = self.log.ranks[index, 1] if isinstance(self.log, Store) else self.log.block(index).rank[-1]
        return bool(last >= self._selection.fraction)

    def _find_cut(self) -> None:
        """The exact time at which the latest share begins; of impressions at that very time, the last."""
        times = []
        for index in range(self.log.num_blocks):
            block = impressions(self.log, index)
            times.append(block.time[np.isin(block.split, self._splits) & (block.split != _TEST)])
        all_times = np.concatenate(times)
        left_out = len(all_times) - round(self._selection.fraction * len(all_times))
        if not len(all_times) or left_out == len(all_times):
            self._cut = np.iinfo(np.int64).max
            return
        self._cut = int(np.partition(all_times, left_out)[left_out])
        ties_out = left_out - int((all_times < self._cut).sum())
        ties = np.array([int((time == self._cut).sum()) for time in times])
        before = np.cumsum(ties) - ties
        self._ties_out = np.clip(ties_out - before, 0, ties)


_recent: collections.deque[tuple[Log, Selection, Examples]] = collections.deque(maxlen=8)


def select(log: Log, selection: Selection) -> Examples:
    """The `Examples` of a selection; those made last are remembered, for a scan of a large log takes minutes.

    Raises:
      UserError: if it keeps no impression.
    """
    for known, chosen, examples in tuple(_recent):
        if known is log and chosen == selection:
            return examples
    examples = Examples(log, selection)
    _recent.append((log, selection, examples))
    return examples


def num_examples(log: Log, selection: Selection) -> int:
    """How many impressions of the log a selection keeps.

    Raises:
      UserError: if it keeps none.
    """
    return select(log, selection).total


def impressions(log: Log, index: int) -> Block:
    """The block at `index` for a scan of its impressions; its events may be missing."""
    # A store keeps impressions apart from events.
    return log.impressions(index) if isinstance(log, Store) else log.block(index)


def _uniform(*keys: np.ndarray) -> np.ndarray:
    """A hash of integers to [0, 1), (n,) float64: SplitMix64's finaliser (Steele et al., 2014), chained."""
    state = np.zeros(len(keys[0]), np.uint64)
    for key in keys:
        state = (state ^ key.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)) * 2.0**-53
