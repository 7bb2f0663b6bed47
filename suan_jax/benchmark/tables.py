"""The embedding part of a step at growing tables: rows touched alone, beside Adam over the whole table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from suan_jax.benchmark import hardware
from suan_jax.benchmark.random_inputs import zipf_ids
from suan_jax.benchmark.timing import Timing, interleaved
from suan_jax.training.table_update import adagrad_rows, distinct, read_rows

COLUMNS = (
    *("name", "rows", "width", "ids", "distinct_ids", "ms", "ms_low", "ms_high", "ratio_to_smallest"),
    *("bytes_per_second", "bandwidth_share", "ratio_to_bytes"),
)
_DRAWS = 32  # sets of ids taken in turns
_MILLION = 1 << 20
_FLOAT = 4  # bytes
_TOUCHED = {"touched rows": jnp.dtype(jnp.float32), "touched rows, bfloat16": jnp.dtype(jnp.bfloat16)}
_ADAM = "dense adam"


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes measured in one run.

    Attributes:
      rows: rows of each table, ascending.
      width: width of the tables.
      ids: ids of a step.
    """

    rows: tuple[int, ...]
    width: int
    ids: int


SMALL = Size((_MILLION, 4 * _MILLION, 16 * _MILLION), 16, 53_248)
LARGE = (
    dataclasses.replace(SMALL, rows=(*SMALL.rows, 96 * _MILLION)),
    Size((_MILLION, 4 * _MILLION, 16 * _MILLION, 96 * _MILLION), 64, 2 * _MILLION),
)


def rows() -> Iterator[dict[str, Any]]:
    """The rows that this machine can run, and why it cannot run the others."""
    if hardware.accelerated():
        for size in LARGE:
            yield from measure(size)
        return
    yield from measure(SMALL)
    for size in LARGE:
        for count in set(size.rows) - set(SMALL.rows if size.width == SMALL.width else ()):
            yield {
                **_sizes(next(iter(_TOUCHED)), count, size),
                "skipped": "its size is for a GPU, and this machine has none",
            }


def measure(size: Size, repeats: int = 9, memory: float | None = None) -> Iterator[dict[str, Any]]:
    """Times every table in turns, by every method.

    Args:
      size: what to measure.
      repeats: measurements of each.
      memory: bytes that all tables together may take; what the device can hold unless given.

    Yields:
      A row each: sizes, the distinct ids of a step, ms with its quartiles, the ratio to the smallest table
      by the same method, and for touched rows the bytes that must move per second, with their share of the
      device's bandwidth. A table that does not fit gives a row with the reason.
    """
    left = hardware.usable_memory() if memory is None else memory
    calls: dict[tuple[str, int], Callable[[int], Any]] = {}
    for method in (*_TOUCHED, _ADAM):
        for count in size.rows:
            needed = count * _row_bytes(method, size)
            if needed > left:
                reason = f"it takes {needed / 2**30:.1f} GiB, and {left / 2**30:.1f} GiB of memory are left"
                yield {**_sizes(method, count, size), "skipped": reason}
                continue
            left -= needed
            if method == _ADAM:
                calls[method, count] = _dense_adam(count, size)
            else:
                calls[method, count] = _touched_rows(count, size, _TOUCHED[method])
    draws = {count: np.mean([len(np.unique(ids)) for ids in _draws(count, size)]) for count in size.rows}
    timings = interleaved(calls, repeats)
    for (method, count), timing in timings.items():
        smallest = next(timing for (other, _), timing in timings.items() if other == method)
        row = {**_sizes(method, count, size), "distinct_ids": float(draws[count]), **timing.fields()}
        row["ratio_to_smallest"] = timing.ratio(smallest)
        if method in _TOUCHED:
            row |= _traffic(size, row["distinct_ids"], timing, _TOUCHED[method])
        yield row


def _sizes(method: str, count: int, size: Size) -> dict[str, Any]:
    return {"name": method, "rows": count, "width": size.width, "ids": size.ids}


def _row_bytes(method: str, size: Size) -> int:
    """Memory for each row of a table."""
    if method == _ADAM:  # two moments and a gradient beside the table and what it will be
        return 5 * _FLOAT * size.width
    return _TOUCHED[method].itemsize * size.width + _FLOAT


def _traffic(size: Size, distinct_ids: float, timing: Timing, dtype: jnp.dtype) -> dict[str, Any]:
    """Bytes that the update cannot do without, per second.

    Every id is read, its row written for the model in float32 and its gradient read; every distinct row, of
    `dtype`, and its accumulator are read and written.
    """
    bytes_moved = size.ids * _FLOAT * (1 + 2 * size.width)
    bytes_moved += distinct_ids * 2 * (dtype.itemsize * size.width + _FLOAT)
    rate, peak = bytes_moved / timing.median(), hardware.peak()
    share = hardware.share(rate, peak.bandwidth if peak else None)
    return {
        "bytes_per_second": rate,
        "bandwidth_share": share,
        "ratio_to_bytes": 1 / share if share else None,  # of the time to the least that the bytes can take
    }


def _draws(count: int, size: Size) -> list[np.ndarray]:
    random = np.random.default_rng(count)
    return [zipf_ids(random, count, (size.ids,)) for _ in range(_DRAWS)]


def _table(count: int, size: Size, dtype: jnp.dtype) -> jax.Array:
    # Written at once, so that no page of it is touched for the first time while the clock runs.
    make = jax.jit(lambda key: (0.01 * jax.random.normal(key, (count, size.width))).astype(dtype))
    return jax.block_until_ready(make(jax.random.key(count)))


def _weights(size: Size) -> jax.Array:
    """What the loss multiplies the ids' rows with, in place of a model."""
    return jax.random.normal(jax.random.key(0), (size.ids, size.width))


def _touched_rows(count: int, size: Size, dtype: jnp.dtype) -> Callable[[int], Any]:
    """One update of the rows that a step touches."""

    def update(table, accumulator, ids, weights):
        found = distinct(ids, count)
        rows = read_rows(table, found.ids)
        gradient = jax.grad(lambda rows: jnp.sum(weights * jnp.square(rows[found.position])))(rows)
        return adagrad_rows(table, accumulator, found.ids, gradient, 0.05, jax.random.key(0))

    return _repeat(update, (_table(count, size, dtype), jnp.full(count, 0.01)), count, size)


def _dense_adam(count: int, size: Size) -> Callable[[int], Any]:
    """One update of the whole table by `optax.adam`."""
    optimizer = optax.adam(1e-3)

    def update(table, moments, ids, weights):
        gradient = jax.grad(lambda table: jnp.sum(weights * jnp.square(table[ids])))(table)
        changes, moments = optimizer.update(gradient, moments)
        return optax.apply_updates(table, changes), moments

    table = _table(count, size, jnp.dtype(jnp.float32))
    return _repeat(update, (table, optimizer.init(table)), count, size)


def _repeat(update: Callable, state: tuple, count: int, size: Size) -> Callable[[int], Any]:
    """Calls of `update`, each with other ids; its state is donated and kept."""
    compiled = jax.jit(update, donate_argnums=(0, 1))
    draws, weights = [jnp.asarray(ids) for ids in _draws(count, size)], _weights(size)

    def call(number: int) -> Any:
        nonlocal state
        state = compiled(*state, draws[number % _DRAWS], weights)
        return state

    return call
