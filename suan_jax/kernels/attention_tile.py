"""What the attention kernels share: how they are cut, and how they read and write.

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


@dataclasses.dataclass(frozen=True)
class Cut:
    """How a kernel is cut into programs.

    Attributes:
      heads: heads of a program, at most; of the three kernels that have any.
      warps: warps of a program.
      stages: how many tiles' loads are in flight.
      rows: rows of the batch of a program, at most; of the kernel for the bias tables alone.
    """

    heads: int = 1
    warps: int = 4
    stages: int = 1
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
      block: queries, and keys, of a tile.
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
    block: int
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
    def tiles(self) -> int:
        """Blocks of rows."""
        return pl.cdiv(self.rows, self.block)

    @property
    def padded(self) -> int:
        """P, the rows of whole blocks."""
        return self.tiles * self.block

    @property
    def width(self) -> int:
        """Dh as a tile holds it."""
        return max(16, pl.next_power_of_2(self.head_dim))

    @property
    def turn(self) -> int:
        """How many classes lie between that of queries and that of the keys that they see."""
        return (self.window - 1) % self.classes

    def key_class(self, query_class: Any) -> Any:
        """The class of the keys that queries of a class see."""
        return lax.rem(query_class + self.classes - self.turn, self.classes)

    def query_class(self, key_class: Any) -> Any:
        """The class of the queries that see keys of a class."""
        return lax.rem(key_class + self.turn, self.classes)


@dataclasses.dataclass(frozen=True)
class Specs:
    """How a program of a grid (block, heads or block of keys, class, row) finds its parts of the arrays.

    Inputs of the whole batch are indexed by its row; what is made for some rows alone, by the program's.

    Attributes:
      launch: what is computed.
      size: B.
      heads: heads of a program.
    """

    launch: Launch
    size: int
    heads: int = 1

    def vectors(self, class_of: Any) -> pl.BlockSpec:
        """Of (B, U, R, H, Dh), for the class that `class_of` makes of the grid's."""
        shape = (self.size, self.launch.padded, None, self.heads, self.launch.width)
        return pl.BlockSpec(shape, lambda i, h, c, b: (0, 0, class_of(c), h, 0))

    def own_vectors(self, class_of: Any) -> pl.BlockSpec:
        """Of (rows, U, R, H, Dh)."""
        shape = (None, self.launch.padded, None, self.heads, self.launch.width)
        return pl.BlockSpec(shape, lambda i, h, c, b: (b, 0, class_of(c), h, 0))

    def integers(self, class_of: Any) -> pl.BlockSpec:
        """Of (B, U, R)."""
        shape = (self.size, self.launch.padded, None)
        return pl.BlockSpec(shape, lambda i, h, c, b: (0, 0, class_of(c)))

    def scalars(self, class_of: Any) -> pl.BlockSpec:
        """Of (B, R, H, U)."""
        shape = (self.size, None, self.heads, self.launch.padded)
        return pl.BlockSpec(shape, lambda i, h, c, b: (0, class_of(c), h, 0))

    def own_scalars(self, class_of: Any) -> pl.BlockSpec:
        """Of (rows, R, H, U)."""
        shape = (None, None, self.heads, self.launch.padded)
        return pl.BlockSpec(shape, lambda i, h, c, b: (b, class_of(c), h, 0))

    def pairs(self, class_of: Any) -> pl.BlockSpec:
        """Of (rows, R, P, P), the class that of the queries."""
        shape = (None, None, self.launch.padded, self.launch.padded)
        return pl.BlockSpec(shape, lambda i, h, c, b: (b, class_of(c), 0, 0))

    def whole(self, array: jax.Array) -> pl.BlockSpec:
        """All of an array."""
        return pl.BlockSpec(array.shape, lambda i, h, c, b: (0,) * array.ndim)

    def one(self) -> pl.BlockSpec:
        """Of (1,)."""
        return pl.BlockSpec((1,), lambda i, h, c, b: (0,))


def same(class_: Any) -> Any:
    """The grid's class itself."""
    return class_


def largest_divisor(count: int, most: int) -> int:
    """The largest divisor of `count` that is at most `most`: the heads of a program."""
    return max(size for size in range(1, min(count, most) + 1) if count % size == 0)


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
    launch: Launch, seen_ref: Any, time_ref: Any, index: Any, class_: Any, row: Any, axis: int
) -> Side:
    """The tokens of a block of a class in a row of the batch, along `axis` of the tile."""
    at = index * launch.block + jnp.arange(launch.block, dtype=jnp.int32)
    slot = at * launch.classes + class_
    inside = at < launch.rows
    place = (row, _block(launch, index))
    seen = pltriton.load(seen_ref.at[place], mask=inside, other=-1)
    time = pltriton.load(time_ref.at[place], mask=inside, other=-1)
    if launch.region == "far":
        seen = jnp.where(slot < launch.history, seen, -1)
    order = jnp.where(slot < launch.history, slot, jnp.maximum(seen, 0))
    side = Side(slot, seen, jnp.where(inside, order, 0), time)
    return Side(*(jnp.expand_dims(x, 1 - axis) for x in side))


def load_rows(launch: Launch, ref: Any, index: Any, head: Any, row: Any) -> jax.Array:
    """(block, width) vectors of a head in a row of the batch, zero beyond the array's end."""
    place = _place(row, _block(launch, index), head, slice(None))
    return pltriton.load(ref.at[place], mask=_inside(launch, index), other=0.0)


def store_rows(launch: Launch, ref: Any, index: Any, head: Any, value: jax.Array) -> None:
    """Writes (block, width) vectors of a head, but for what lies beyond the array's end."""
    place = _place(None, _block(launch, index), head, slice(None))
    pltriton.store(ref.at[place], value.astype(ref.dtype), mask=_inside(launch, index))


def load_sum(launch: Launch, ref: Any, index: Any, head: Any, row: Any = None) -> jax.Array:
    """One number a query; 0 for `MASKED`, as a log_sum may be: masked scores alone make weights of zero."""
    place = _place(row, head, _block(launch, index))
    value = pltriton.load(ref.at[place], mask=_within_rows(launch, index), other=0.0)
    return jnp.where(value > MASKED / 2, value, 0.0)


def store_sum(launch: Launch, ref: Any, index: Any, head: Any, value: jax.Array) -> None:
    """Writes one number a query."""
    pltriton.store(ref.at[_place(None, head, _block(launch, index))], value, mask=_within_rows(launch, index))


def pair(launch: Launch, index: Any, key_index: Any) -> tuple:
    """The place of a tile of pairs."""
    return _block(launch, index), _block(launch, key_index)


def load_turned(launch: Launch, ref: Any, index: Any, key_index: Any) -> jax.Array:
    """A tile of pairs with keys down and queries across."""
    block = jnp.arange(launch.block)
    return pltriton.load(
        ref.at[index * launch.block + block[None, :], key_index * launch.block + block[:, None]]
    )


def _block(launch: Launch, index: Any) -> Any:
    return pl.ds(index * launch.block, launch.block)


def _place(row: Any, *index: Any) -> tuple:
    """An index in a form that every lowering takes, after that of a row of the batch if there is one."""
    index = index if row is None else (row, *index)
    return tuple(np.int32(i) if isinstance(i, int) else i for i in index)


def _within_rows(launch: Launch, index: Any) -> jax.Array:
    return index * launch.block + jnp.arange(launch.block) < launch.rows


def _inside(launch: Launch, index: Any) -> jax.Array:
    shape = (launch.block, launch.width)
    rows = index * launch.block + lax.broadcasted_iota(jnp.int32, shape, 0)
    columns = lax.broadcasted_iota(jnp.int32, shape, 1)
    mask = columns >= 0
    if launch.rows % launch.block:
        mask &= rows < launch.rows
    if launch.width != launch.head_dim:
        mask &= columns < launch.head_dim
    return mask


def time_gap(query: Side, key: Side) -> jax.Array:
    """Seconds between each query and each key of a tile, below `time_cells.LAST`; −1 if a time is unknown."""
    gap = jnp.minimum(jnp.abs(query.time - key.time), time_cells.LAST - 1)
    return jnp.where((query.time | key.time) >= 0, gap, -1)
