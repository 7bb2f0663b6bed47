"""The biases and the mask of the pairs of tokens that a launch visits, for a few rows of the batch.

A pair's position weight and time weight are looked up, which costs about as much as its products, and all
heads and all kernels of a direction need them. So they are looked up once and read like keys are: (rows, R,
P, P) of them at a time, of so many rows that the array stays within a bound.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

from suan_jax.kernels import attention_tile as tile
from suan_jax.kernels import attention_visits as visits
from suan_jax.kernels import time_cells
from suan_jax.kernels.attention_tile import MASKED, Cut, Launch, Side, Specs, same

_HIDDEN = 1 << 30  # the slot of a pad, which no query reaches


def fill(
    launch: Launch,
    cut: Cut,
    arrays: dict[str, jax.Array],
    tables: dict[str, jax.Array],
    first: jax.Array,
    rows: int,
    dtype: jnp.dtype,
) -> jax.Array:
    """Runs the kernel: a program for each tile of pairs.

    Args:
      launch: what it computes.
      cut: how it is cut.
      arrays: seen, query_time and key_time, (B, U, R) int32; length, (B,) int32.
      tables: position; and edge, low and high by cell of `time_cells`; as far as they exist.
      first: (1,) int32, the first row of the batch.
      rows: how many from there on.
      dtype: of the result.

    Returns:
      (rows, R, P, P), P whole blocks of U, by class and row of queries and row of keys; `MASKED` where a
      query does not see a key. Tiles that no kernel visits are not written.
    """
    specs = Specs(launch, arrays["seen"].shape[0])
    keys = launch.key_class
    return pl.pallas_call(
        functools.partial(_kernel, launch=launch, names=tuple(tables)),
        grid=(launch.tiles, launch.tiles, launch.classes, rows),
        in_specs=[
            specs.one(),
            specs.integers(same),
            specs.integers(same),
            specs.integers(keys),
            specs.integers(keys),
            specs.whole(arrays["length"]),
            *(specs.whole(table) for table in tables.values()),
        ],
        out_specs=specs.pairs(same),
        out_shape=jax.ShapeDtypeStruct((rows, launch.classes, launch.padded, launch.padded), dtype),
        compiler_params=pltriton.CompilerParams(num_warps=cut.warps, num_stages=cut.stages),
        interpret=launch.interpret,
        name=f"attention_{launch.region}_biases",
    )(
        first,
        arrays["seen"],
        arrays["query_time"],
        arrays["seen"],
        arrays["key_time"],
        arrays["length"],
        *tables.values(),
    )


def _kernel(first_ref, seen_q, time_q, seen_k, time_k, length_ref, *refs, launch, names):
    tables, out_ref = dict(zip(names, refs, strict=False)), refs[-1]
    index, key_index, class_ = pl.program_id(0), pl.program_id(1), pl.program_id(2)
    row = first_ref[0] + pl.program_id(3)
    key_class, length = launch.key_class(class_), length_ref[row]

    def write() -> None:
        query = tile.load_side(launch, seen_q, time_q, index, class_, row, axis=0)
        key = tile.load_side(launch, seen_k, time_k, key_index, key_class, row, axis=1)
        out_ref[tile.pair(launch, index, key_index)] = _bias(launch, tables, query, key).astype(out_ref.dtype)

    of_query = visits.key_blocks(launch, index, class_, length)
    of_key = visits.query_blocks(launch, key_index, key_class, length)
    visited = visits.within(of_query, key_index) | visits.within(of_key, index)
    pl.when(visited)(write)


def _bias(launch: Launch, tables: dict[str, Any], query: Side, key: Side) -> jax.Array:
    """The biases of a tile, float32."""
    value = jnp.zeros(jnp.broadcast_shapes(query.slot.shape, key.slot.shape), jnp.float32)
    if launch.timed:
        gap = jnp.abs(query.time - key.time)
        cell = lax.bitcast_convert_type(gap.astype(jnp.float32), jnp.int32) >> time_cells.SHIFT
        cell = jnp.where((query.time | key.time) >= 0, cell, time_cells.UNKNOWN_CELL)
        edge, low, high = (pltriton.load(tables[name].at[cell]) for name in ("edge", "low", "high"))
        value = jnp.where(gap >= edge, high, low)
    if launch.max_tokens:
        # Orders are 0 to L, and L < n: every index is inside, also a pad's.
        value += pltriton.load(tables["position"].at[key.order - (query.order - (launch.max_tokens - 1))])
    return jnp.where(_sees(launch, query, key), value, MASKED)


def _sees(launch: Launch, query: Side, key: Side) -> jax.Array:
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
