"""Time buckets found in a kernel without a search: a cell of the float32's bits, then one exact comparison.

The exponent and the first two bits of the mantissa cut the integers from 0 on into cells less than a bucket
wide, so that at most one edge lies in a cell: the bucket is the cell's first, or one more from that edge on.
The conversion to float32 rounds, but never changes an order, and the edge is compared as an integer.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

SHIFT = 21  # bits of a float32 below those of its cell
CELLS = 640  # those of 0, in cell 0, and of 1 to 2^31, in cells 508 to 632; no integer is in the others
UNKNOWN_CELL = CELLS - 1  # of a difference from or to an unknown time
BINS = 128  # places for the buckets, and the last for unknown times
LAST = np.iinfo(np.int32).max


def cell_of(delta: np.ndarray) -> np.ndarray:
    """The cells of int32 differences, 0 or more, int32."""
    return np.asarray(delta, np.int32).astype(np.float32).view(np.int32) >> SHIFT


@functools.cache
def cells(edges: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The tables of the cells.

    Args:
      edges: the smallest integer of each bucket, from 0 and rising, all within int32.

    Returns:
      (CELLS,) int32 the edge inside each cell, `LAST` where there is none; and (CELLS,) int32 the bucket of
      each cell's first integer.

    Raises:
      ValueError: if a cell holds two edges.
    """
    first = np.array([_first_of(cell) for cell in range(CELLS)])
    base = np.searchsorted(np.asarray(edges, np.int64)[1:], first, side="right")
    edge = np.full(CELLS, LAST, np.int32)
    for bucket, start in enumerate(edges):
        cell = cell_of(start)
        if base[cell] >= bucket:
            continue
        if edge[cell] != LAST:
            raise ValueError(f"edges {edge[cell]} and {start} of time buckets are too close")
        edge[cell] = start
    return edge, base.astype(np.int32)


def _first_of(cell: int) -> int:
    """The smallest int32 from 0 on of a cell or of a later one; `LAST` if there is none."""
    low, high = 0, LAST
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cell_of(middle) >= cell else (middle + 1, high)
    return low


def reach(
    query_time: jax.Array,
    key_time: jax.Array,
    block: int,
    tiles: int,
    turn: np.ndarray,
    edges: tuple[int, ...],
) -> tuple[jax.Array, jax.Array]:
    """The first and the last bucket that a gap between two blocks can be in.

    Args:
      query_time: (B, U, R) int32, −1 where unknown or of no account.
      key_time: likewise.
      block: rows of a block.
      tiles: blocks.
      turn: (R,) the class of keys that goes with each class of queries.
      edges: as `cells` takes.

    Returns:
      (B, R, tiles, tiles) int32 each, by block of queries and block of keys; 0 and −1 where no time is known.
    """

    def bounds(time: jax.Array) -> tuple[jax.Array, jax.Array]:
        time = jnp.pad(time, ((0, 0), (0, tiles * block - time.shape[1]), (0, 0)), constant_values=-1)
        time = time.reshape(time.shape[0], tiles, block, -1)
        both = jnp.min(jnp.where(time >= 0, time, LAST), axis=2), jnp.max(time, axis=2)
        return tuple(jnp.swapaxes(x, 1, 2) for x in both)

    query_low, query_high = (x[..., :, None] for x in bounds(query_time))
    key_low, key_high = (x[:, turn][..., None, :] for x in bounds(key_time))
    starts = jnp.asarray(edges[1:], jnp.int32)

    def bucket(gap: jax.Array) -> jax.Array:
        return jnp.searchsorted(starts, gap, side="right", method="compare_all").astype(jnp.int32)

    some = (query_high >= 0) & (key_high >= 0)
    nearest = jnp.maximum(jnp.maximum(key_low - query_high, query_low - key_high), 0)
    farthest = jnp.maximum(key_high - query_low, query_high - key_low)
    return jnp.where(some, bucket(nearest), 0), jnp.where(some, bucket(farthest), -1)
