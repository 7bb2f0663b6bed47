"""From a log to batches: an endless shuffled stream to train on, one ordered pass to evaluate.

Every batch is a function of (seed, step) alone: a resumed run sees what the uninterrupted one would have, and
P processes that each assemble their rows of a batch see together what one process sees.
"""

from __future__ import annotations

import collections
import contextlib
import sys
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent import futures
from typing import Generic, TypeVar

import grain
import numpy as np

from suan_jax.config import DataConfig
from suan_jax.data.assembly import EvaluationBatch, Window, assemble, concatenate, join
from suan_jax.data.block import Log
from suan_jax.data.packing import Packing, Rows, training_rows
from suan_jax.data.selection import Selection, select
from suan_jax.errors import UserError

_EVALUATION_WINDOW = 8  # nothing is mixed, so few blocks at a time will do
_AHEAD = 8  # batches assembled before they are asked for, so that a step seldom waits for a window

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def train_iterator(
    log: Log,
    data: DataConfig,
    batch_size: int,
    seed: int,
    shards: Sequence[int] = (0,),
    shard_count: int = 1,
) -> grain.DatasetIterator:
    """An endless iterator of training batches, `Batch` of NumPy arrays, that can be saved and set back.

    Args:
      log: where examples come from.
      data: which of them, how long their histories are, and how they are shuffled.
      batch_size: candidate slots of a batch over all processes, B·M with M = `data.candidates`.
      seed: seed of the order.
      shards: which shares of every batch's rows this process assembles, ascending.
      shard_count: number of equal, contiguous shares.

    Returns:
      The iterator. Its `get_state()` is one number, the step; `set_state` continues there.

    Raises:
      UserError: if a setting is out of range, or leaves no example.
    """
    rows = training_rows(log, data)
    if batch_size % rows.candidates:
        raise UserError(
            f"the batch size is {batch_size}, expected a multiple of data.candidates, {rows.candidates}"
        )
    source = Batches(rows, batch_size // rows.candidates, data, seed, shards, shard_count)
    dataset = grain.MapDataset.source(source).map(lambda item: item.batch)
    return iter(dataset.to_iter_dataset(_read_options(data)))


def evaluation_batches(
    log: Log,
    split: str,
    batch_size: int,
    max_len: int,
    shards: Sequence[int] = (0,),
    shard_count: int = 1,
    threads: int = 1,
) -> grain.IterDataset:
    """One pass over a split, whole and in store order, as `EvaluationBatch`es of NumPy arrays.

    Args:
      log: where examples come from.
      split: one of `SPLITS`.
      batch_size: B over all processes, in every batch; in the last, rows without an example are zero and
        their `candidate_mask` is False.
      max_len: L.
      shards: which shares of every batch's rows this process assembles, ascending.
      shard_count: number of equal, contiguous shares.
      threads: that read and assemble batches.

    Raises:
      UserError: if the split is unknown or empty.
    """
    rows = Rows(select(log, Selection((split,))), Packing())
    data = DataConfig(max_len=max_len, window=_EVALUATION_WINDOW, threads=threads)
    source = Batches(rows, batch_size, data, None, shards, shard_count)
    return grain.MapDataset.source(source).to_iter_dataset(_read_options(data))


class Batches:
    """Batches by step, a source for `grain.MapDataset.source`.

    With a seed, rows form an endless sequence of epochs. An epoch permutes the blocks, reads
    `data.window` consecutive ones together, and permutes the rows of each such window. Batch `step`
    holds the positions [step · B, (step + 1) · B) of that sequence, over the ends of windows and epochs, so
    each epoch has each row, and so each example, exactly once. Without a seed there is one epoch, in store
    order, padded to whole batches.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        data: DataConfig,
        seed: int | None,
        shards: Sequence[int] = (0,),
        shard_count: int = 1,
    ):
        """A source that has read nothing yet.

        Args:
          rows: what to batch.
          batch_size: B, rows of a batch over all processes.
          data: `max_len`, `window` and `threads` are read.
          seed: seed of the order, or None for one pass in store order.
          shards: which shares of every batch's rows this process assembles, ascending.
          shard_count: number of equal, contiguous shares.

        Raises:
          UserError: if a batch does not divide into the shares, or a setting is out of range.
        """
        for name in ("max_len", "window"):
            if getattr(data, name) < 1:
                raise UserError(f"data.{name} is {getattr(data, name)}, expected at least 1")
        if seed is not None and seed < 0:
            raise UserError(f"train.seed is {seed}, expected 0 or more")
        if batch_size < 1 or batch_size % shard_count:
            raise UserError(
                f"the batch size is {batch_size}, expected a positive multiple of the {shard_count} shares"
            )
        self._source, self._max_len, self._window = rows, data.max_len, data.window
        self._batch_size, self._seed = batch_size, seed
        size = batch_size // shard_count
        self._rows = size * len(shards)
        self._spans = [(shard * size, (shard + 1) * size) for shard in shards]
        self._blocks = np.flatnonzero(rows.counts)
        self._threads = data.threads
        # Each thread may be in a window of its own, one more is there where a batch straddles two, and one is
        # read ahead.
        self._windows = _Cache(self._load_window, capacity=data.threads + 2)
        self._shuffled = _Cache(self._shuffle_window, capacity=data.threads + 2)
        self._orders = _Cache(self._make_order, capacity=2)

    def __len__(self) -> int:
        """Number of batches; without end for training."""
        if self._seed is not None:
            return sys.maxsize // self._batch_size
        return -(-self._source.total // self._batch_size)

    def __getitem__(self, step: int) -> EvaluationBatch:
        """The rows of this process in batch `step`."""
        start, parts = step * self._batch_size, []
        for first, last in self._spans:
            position, stop = start + first, start + last
            if self._seed is None:
                stop = min(stop, self._source.total)
            while position < stop:
                part = self._read(position, stop - position)
                parts.append(part)
                position += len(part.user)
        if not parts:  # all of this process's rows lie behind the last example
            parts.append(self._read(0, 0))
        return concatenate(parts, self._rows)

    def _read(self, position: int, count: int) -> EvaluationBatch:
        """Up to `count` rows from `position` on, all of one window."""
        epoch, offset = divmod(position, self._source.total)
        _, starts = self._orders(epoch)
        number = int(np.searchsorted(starts, offset, side="right")) - 1
        window, rows = self._shuffled((epoch, number))
        following = (epoch, number + 1)  # not of the next epoch, as few runs get there
        if self._threads and number + 1 < len(starts) and following not in self._shuffled:
            # A daemon, so that a job that ends does not wait for it.
            threading.Thread(target=self._read_ahead, args=(following,), daemon=True).start()
        first = offset - int(starts[number])
        return assemble(window, rows[first : first + count], self._max_len)

    def _read_ahead(self, window: tuple[int, int]) -> None:
        with contextlib.suppress(Exception):  # whoever asks for the window meets it
            self._shuffled(window)

    def _make_order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The blocks of an epoch in the order they are read, and the offset at which each window starts."""
        blocks = self._blocks
        # One window is mixed whole as it is; in the same order, it is read once for all epochs.
        if self._seed is not None and len(blocks) > self._window:
            blocks = np.random.default_rng((self._seed, epoch)).permutation(blocks)
        sizes = np.add.reduceat(self._source.counts[blocks], np.arange(0, len(blocks), self._window))
        return blocks, np.cumsum(sizes) - sizes

    def _shuffle_window(self, key: tuple[int, int]) -> tuple[Window, np.ndarray]:
        """A window of an epoch and its rows in the order they are handed out."""
        epoch, number = key
        order, _ = self._orders(epoch)
        first = number * self._window
        window, rows = self._windows(tuple(order[first : first + self._window].tolist()))
        if self._seed is not None:
            # NumPy seeds (s, e) and (s, e, 0) alike, hence the 1.
            rows = np.random.default_rng((self._seed, epoch, number + 1)).permutation(rows)
        return window, rows

    def _load_window(self, indices: tuple[int, ...]) -> tuple[Window, np.ndarray]:
        """The blocks at `indices`, joined, and their rows, (n, M)."""
        rows, offset = [], 0
        if self._threads > 1:
            with futures.ThreadPoolExecutor(self._threads) as pool:
                blocks = list(pool.map(self._source.log.block, indices))
        else:
            blocks = list(map(self._source.log.block, indices))
        for index, block in zip(indices, blocks, strict=True):
            found = self._source.rows(index, block)
            if len(found) != self._source.counts[index]:
                raise UserError(
                    f"block {index} of {self._source.log} has {len(found)} examples, "
                    f"expected the {self._source.counts[index]} that its counts tell"
                )
            rows.append(np.where(found >= 0, found + offset, -1))
            offset += len(block.time)
        return join(blocks), np.concatenate(rows)


class _Cache(Generic[Key, Value]):
    """Remembers what `make` made for the keys used last; makes each once, however many threads ask."""

    def __init__(self, make: Callable[[Key], Value], capacity: int):
        self._make, self._capacity = make, capacity
        self._lock = threading.Lock()
        self._made: collections.OrderedDict[Key, futures.Future[Value]] = collections.OrderedDict()

    def __contains__(self, key: Key) -> bool:
        """Whether it was made, or is being made."""
        return key in self._made

    def __call__(self, key: Key) -> Value:
        with self._lock:
            made = self._made.get(key)
            missing = made is None
            if missing:
                made = self._made[key] = futures.Future()
                if len(self._made) > self._capacity:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
        if missing:
            try:
                made.set_result(self._make(key))
            except BaseException as error:
                with self._lock:
                    self._made.pop(key, None)
                made.set_exception(error)
        return made.result()


def _read_options(data: DataConfig) -> grain.ReadOptions:
    return grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=max(_AHEAD, data.threads))
