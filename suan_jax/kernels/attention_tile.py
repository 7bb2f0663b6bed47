"""What the attention kernels share: which tiles a launch visits, and the biases of the pairs of a tile.

A launch sees the T slots as U rows of R classes, slot = u·R + class, and pairs the queries of one class with
the keys of one class. R is 1 but for the dilated part of sparse attention, whose pairs are dense within
classes modulo the dilation.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

from suan_jax.kernels import time_cells

MASKED = -1e30  # finite, so that a row of masked scores alone has no NaN
_FEW = 5  # comparisons that cost less than a cell
_HIDDEN = 1 << 30  # the slot of a pad, which no query reaches


@dataclasses.dataclass(frozen=True)
class Tile:
    """How a kernel is cut into programs.

    Attributes:
      block: queries, and keys, of a tile.
      heads: heads of a program, at most; they share a tile's biases.
      warps: warps of a program.
      stages: how many tiles' loads are in flight.
      rows: rows of the batch of a program, at most; of the kernel for the bias tables alone.
    """

    block: int
    heads: int
    warps: int
    stages: int
    rows: int = 1


@dataclasses.dataclass(frozen=True)
class Launch:
    """What a kernel's code depends on, beside the shapes of its arrays.

    Attributes:
      kind: "softmax" or "silu".
      tokens: T, history and candidates.
      history: L.
      head_dim: Dh.
      scale: factor of q kᵀ.
      divisor: n of silu.
      max_tokens: n of the position weights; 0 for none.
      timed: whether there are time weights.
      region: "all" pairs, those "near" (o < window, and all of a candidate's) or those "far" (history alone).
      window: k of local attention.
      dilation: r of dilated attention.
      interpret: whether to run without a GPU.
    """

    kind: str
    tokens: int
    history: int
    head_dim: int
    scale: float
    divisor: float
    max_tokens: int
    timed: bool
    region: str
    window: int
    dilation: int
    interpret: bool

    @property
    def classes(self) -> int:
        """R."""
        return self.dilation if self.region == "far" else 1

    @property
    def rows(self) -> int:
        """U, rounded up."""
        return pl.cdiv(self.tokens, self.classes)

    @property
    def width(self) -> int:
        """Dh as a tile holds it."""
        return max(16, pl.next_power_of_2(self.head_dim))

    def key_class(self, query_class: Any) -> Any:
        """The class of the keys that queries of a class see."""
        return lax.rem(query_class + self.classes - (self.window - 1) % self.classes, self.classes)

    def query_class(self, key_class: Any) -> Any:
        """The class of the queries that see keys of a class."""
        return lax.rem(key_class + (self.window - 1) % self.classes, self.classes)


class Side(NamedTuple):
    """The queries or keys of a tile, each array a row or a column of it.

    Attributes:
      slot: int32.
      seen: int32, how many leading slots the token sees, beside itself; −1 at a pad.
      order: int32, larger is more recent.
      time: int32 seconds, −1 if unknown.
    """

    slot: jax.Array
    seen: jax.Array
    order: jax.Array
    time: jax.Array


def load_side(
    launch: Launch,
    seen_ref: Any,
    time_ref: Any,
    start: Any,
    size: int,
    class_: Any,
    axis: int,
    row: Any = None,
) -> Side:
    """The tokens of rows `start` to `start + size` of a class, along `axis` of the tile.

    `row` is that of the batch, where a program has several.
    """
    at = start + jnp.arange(size, dtype=jnp.int32)
    slot = at * launch.classes + class_
    inside = at < launch.rows
    index = in_row(row, pl.ds(start, size))
    seen = pltriton.load(seen_ref.at[index], mask=inside, other=-1)
    time = pltriton.load(time_ref.at[index], mask=inside, other=-1)
    if launch.region == "far":
        seen = jnp.where(slot < launch.history, seen, -1)
    order = jnp.where(slot < launch.history, slot, jnp.maximum(seen, 0))
    side = Side(slot, seen, jnp.where(inside, order, 0), time)
    return Side(*(jnp.expand_dims(x, 1 - axis) for x in side))


def load_rows(launch: Launch, ref: Any, start: Any, size: int, head: Any, row: Any = None) -> jax.Array:
    """(size, width) vectors of a head, zero beyond the array's end."""
    index = in_row(row, pl.ds(start, size), head, slice(None))
    return pltriton.load(ref.at[index], mask=_inside(launch, start, size), other=0.0)


def store_rows(launch: Launch, ref: Any, start: Any, size: int, head: int, value: jax.Array) -> None:
    """Writes (size, width) vectors of a head, but for what lies beyond the array's end."""
    index = in_row(None, pl.ds(start, size), head, slice(None))
    pltriton.store(ref.at[index], value.astype(ref.dtype), mask=_inside(launch, start, size))


def load_sum(launch: Launch, ref: Any, start: Any, size: int, head: Any, row: Any = None) -> jax.Array:
    """One number a query; 0 for `MASKED`: the scores of a query without keys alone make weights of zero."""
    inside = start + jnp.arange(size) < launch.rows
    value = pltriton.load(ref.at[in_row(row, head, pl.ds(start, size))], mask=inside, other=0.0)
    return jnp.where(value > MASKED / 2, value, 0.0)


def store_sum(launch: Launch, ref: Any, start: Any, size: int, head: int, value: jax.Array) -> None:
    """Writes one number a query."""
    inside = start + jnp.arange(size) < launch.rows
    pltriton.store(ref.at[in_row(None, head, pl.ds(start, size))], value, mask=inside)


def in_row(row: Any, *index: Any) -> tuple:
    """An index in a form that every lowering takes, after that of a row of the batch if there is one."""
    index = index if row is None else (row, *index)
    return tuple(np.int32(i) if isinstance(i, int) else i for i in index)


def _inside(launch: Launch, start: Any, size: int) -> jax.Array:
    rows = start + lax.broadcasted_iota(jnp.int32, (size, launch.width), 0)
    columns = lax.broadcasted_iota(jnp.int32, (size, launch.width), 1)
    mask = columns >= 0
    if launch.rows % size:
        mask &= rows < launch.rows
    if launch.width != launch.head_dim:
        mask &= columns < launch.head_dim
    return mask


def sees(launch: Launch, query: Side, key: Side) -> jax.Array:
    """Whether each query of a tile sees each key."""
    key_slot = jnp.where(key.seen >= 0, key.slot, _HIDDEN)
    visible = (key_slot < query.seen) | (key_slot == query.slot)
    back = query.order - key.order
    if launch.region == "near":
        dilated = lax.rem(
            query.order + (launch.window * launch.dilation - launch.window + 1), launch.dilation
        )
        dilated = dilated == lax.rem(jnp.maximum(key.order, 0), launch.dilation)
        visible &= (back < launch.window) | (dilated & (query.slot >= launch.history))
    elif launch.region == "far":
        visible &= back >= launch.window
    return visible


def time_gap(query: Side, key: Side) -> jax.Array:
    """Seconds between each query and each key of a tile, below `time_cells.LAST`; −1 if a time is unknown."""
    gap = jnp.minimum(jnp.abs(query.time - key.time), time_cells.LAST - 1)
    return jnp.where((query.time | key.time) >= 0, gap, -1)


def bias(
    launch: Launch,
    tables: dict[str, Any],
    query: Side,
    key: Side,
    reach: tuple[Any, Any] | None = None,
) -> jax.Array:
    """The biases of a tile, float32, `MASKED` where a query does not see a key.

    `reach`, the first and the last bucket of the tile's gaps, makes a branch: where they are close, a few
    comparisons find a pair's bucket; where not, and without it, the cells of `time_cells` do. The branch also
    keeps the compiler from staging the tables' values through shared memory together with keys and values,
    which is worth more: a kernel with loads in flight needs it, and one without does better without.
    """

    def total(time_bias: Any) -> jax.Array:
        value = time_bias()
        if launch.max_tokens:
            # Orders are 0 to L, and L < n: every index is inside, also a pad's.
            value += pltriton.load(tables["position"].at[key.order - (query.order - (launch.max_tokens - 1))])
        return jnp.where(sees(launch, query, key), value, MASKED)

    def few() -> jax.Array:
        gap = time_gap(query, key)
        first = reach[0]
        value = jnp.full(gap.shape, tables["weight"][first], jnp.float32)
        for i in range(1, _FEW + 1):  # beyond `last` no gap reaches an edge
            value = jnp.where(gap >= tables["edges"][first + i], tables["weight"][first + i], value)
        return jnp.where(gap < 0, tables["weight"][time_cells.BINS - 1], value)

    def many() -> jax.Array:
        gap = jnp.abs(query.time - key.time)
        cell = lax.bitcast_convert_type(gap.astype(jnp.float32), jnp.int32) >> time_cells.SHIFT
        cell = jnp.where((query.time | key.time) >= 0, cell, time_cells.UNKNOWN_CELL)
        edge, low, high = (pltriton.load(tables[name].at[cell]) for name in ("edge", "low", "high"))
        return jnp.where(gap >= edge, high, low)

    if not launch.timed:
        return total(lambda: jnp.zeros(jnp.broadcast_shapes(query.slot.shape, key.slot.shape), jnp.float32))
    if reach is None:
        return total(many)
    return lax.cond(reach[1] - reach[0] <= _FEW, lambda: total(few), lambda: total(many))


def reach_of(refs: list, index: Any) -> tuple[Any, Any] | None:
    """A tile's first and last bucket, of the two arrays of a row of tiles, if there are any."""
    return (refs[0][index], refs[1][index]) if refs else None


def loop(ranges: tuple[tuple[Any, Any], tuple[Any, Any]], body: Any, carry: Any) -> Any:
    """`body(index, carry)` for the indices of two ranges, in one loop: the body is compiled once."""
    (start, stop), (more, end) = ranges
    first = stop - start

    def step(t: jax.Array, carry: Any) -> Any:
        return body(jnp.where(t < first, start + t, more + t - first), carry)

    return lax.fori_loop(0, first + end - more, step, carry)


def key_blocks(launch: Launch, block: int, index: Any, class_: Any, length: Any) -> tuple:
    """The two ranges of blocks of keys that a block of queries of a class sees.

    `length` is the number of the row's history slots in use: blocks beyond it are not visited.
    """
    start = index * block
    if launch.region == "far":
        first, last = (row * launch.classes + class_ for row in (start, start + block - 1))
        reach = jnp.minimum(last - launch.window + 1, length) - launch.key_class(class_)
        rows = lax.div(jnp.maximum(reach, 0) + launch.classes - 1, launch.classes)
        stop = jnp.where(first < length, lax.div(rows + block - 1, block), 0)
        return (0, stop), (0, 0)
    end = jnp.minimum(start + block, launch.tokens)
    candidates = end > launch.history
    used = lax.div(length + block - 1, block)
    stop = jnp.where(candidates, used, jnp.where(start < length, jnp.minimum(used, index + 1), 0))
    low = 0
    if launch.region == "near":
        local = lax.div(jnp.maximum(start - launch.window + 1, 0), block)
        low = jnp.where(candidates, 0, jnp.minimum(local, stop))
    own = jnp.maximum(stop, index)
    return (low, stop), (own, jnp.where(candidates, jnp.maximum(own, index + 1), own))


def query_blocks(launch: Launch, block: int, index: Any, class_: Any, length: Any) -> tuple:
    """The two ranges of blocks of queries that see a block of keys of a class."""
    start = index * block
    if launch.region == "far":
        first = start * launch.classes + class_
        queries = launch.query_class(class_)
        low = lax.div(jnp.maximum(first + launch.window - queries, 0), launch.classes * block)
        rows = lax.div(jnp.maximum(length - queries, 0) + launch.classes - 1, launch.classes)
        stop = jnp.where(first < length, lax.div(rows + block - 1, block), 0)
        return (jnp.minimum(low, stop), stop), (0, 0)
    used = start < length
    stop = lax.div(length + block - 1, block)
    if launch.region == "near":
        stop = jnp.minimum(stop, lax.div(start + block + launch.window - 2 + block, block))
    stop = jnp.where(used, jnp.maximum(stop, index), index)
    more = jnp.maximum(stop, launch.history // block)
    candidates = used | (start + block > launch.history)
    return (index, stop), (more, jnp.where(candidates, pl.cdiv(launch.tokens, block), more))
