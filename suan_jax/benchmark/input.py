"""The input pipeline: examples that one core reads or generates, shuffles and assembles in a second."""

from __future__ import annotations

import cProfile
import dataclasses
import itertools
import pstats
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from suan_jax.config import DataConfig, SyntheticConfig
from suan_jax.data.log import open_log
from suan_jax.data.packing import training_rows
from suan_jax.data.pipeline import train_iterator
from suan_jax.data.store_writer import StoreWriter
from suan_jax.data.synthetic import SyntheticLog

COLUMNS = (
    *(
        "name",
        "threads",
        "candidates",
        "candidates_per_row",
        "examples",
        "examples_per_cpu_second",
        "examples_per_second",
    ),
    *("repeated_examples_per_cpu_second", "largest_share"),
)
_MAX_LEN, _BATCH_SIZE, _CANDIDATES = 100, 1024, 8
_PROFILED = 10  # functions of a profile


def rows() -> Iterator[dict[str, Any]]:
    """The rows of the default synthetic log and of a store of it."""
    yield from measure(SyntheticConfig(), _MAX_LEN, _BATCH_SIZE)


def measure(synthetic: SyntheticConfig, max_len: int, batch_size: int) -> Iterator[dict[str, Any]]:
    """Times the log as it is generated, as it is read from a store in a temporary directory, and from there
    packed across time.

    Yields:
      A row for each of them and each number of threads: examples per second of CPU time, of all threads
      together, and of the clock, over one epoch of a fresh iterator; the same for batches of the next epoch,
      which are assembled from what is still in memory if the log is one window; and without threads the
      shares of CPU time of the functions that take the most.
    """
    with tempfile.TemporaryDirectory() as directory:
        store = Path(directory) / "store"
        log = SyntheticLog(synthetic)
        with StoreWriter(store, log.schema, source="synthetic") as writer:
            for index in range(log.num_blocks):
                writer.write(log.block(index))
        generated = DataConfig(synthetic=synthetic, max_len=max_len)
        stored = dataclasses.replace(generated, store=str(store))
        packed = dataclasses.replace(stored, packing="time", candidates=_CANDIDATES)
        for name, data in (("synthetic log", generated), ("store", stored), ("store, packed", packed)):
            for threads in (0, 1):
                yield _row(name, dataclasses.replace(data, threads=threads), batch_size)


def _row(name: str, data: DataConfig, batch_size: int) -> dict[str, Any]:
    size = batch_size // data.candidates
    batches = max(training_rows(open_log(data), data).total // size, 1)
    iterator = _iterator(data, batch_size)
    examples, cpu, wall = _consume(iterator, batches)
    repeated, repeated_cpu, _ = _consume(iterator, batches)
    shares = [] if data.threads else _shares(data, batch_size, batches)
    return {
        "name": name,
        "threads": data.threads,
        "max_len": data.max_len,
        "candidates": data.candidates,
        "candidates_per_row": examples / (batches * size),
        "batch_size": batch_size,
        "examples": examples,
        "examples_per_cpu_second": examples / cpu,
        "examples_per_second": examples / wall,
        "repeated_examples_per_cpu_second": repeated / repeated_cpu,
        "largest_share": " ".join(map(str, shares[0].values())) if shares else None,
        "shares": shares,
    }


def _iterator(data: DataConfig, batch_size: int) -> Iterator[Any]:
    # A log of its own: what another iterator counted or cached must not help.
    return train_iterator(open_log(data), data, batch_size, seed=0)


def _consume(iterator: Iterator[Any], batches: int) -> tuple[int, float, float]:
    """Takes so many batches; their examples, and seconds of CPU time, of all threads, and of the clock."""
    examples, cpu, wall = 0, time.process_time(), time.perf_counter()
    for batch in itertools.islice(iterator, batches):
        examples += int(batch.candidate_mask.sum())
    return examples, time.process_time() - cpu, time.perf_counter() - wall


def _shares(data: DataConfig, batch_size: int, batches: int) -> list[dict[str, Any]]:
    """The functions in which an epoch spends the most time of its own: function and share."""
    profile = cProfile.Profile()
    profile.enable()
    _consume(_iterator(data, batch_size), batches)
    profile.disable()
    stats = pstats.Stats(profile).stats  # (file, line, name) to (calls, calls, own time, whole time, callers)
    total = sum(entry[2] for entry in stats.values())
    largest = sorted(stats.items(), key=lambda item: -item[1][2])[:_PROFILED]
    return [{"function": _name(*place), "share": round(entry[2] / total, 3)} for place, entry in largest]


def _name(file: str, line: int, function: str) -> str:
    """A built-in function has no file, which a profile calls "~"."""
    return function if file == "~" else f"{Path(file).name}:{line} {function}"
