"""The backward kernel for the bias tables: one program for a tile of pairs, over some rows of the batch.

The gradients of the scores are reduced without two programs writing to one address, so that the result does
not depend on their order.

- Position: between history slots the weight depends on the slots alone. A program adds its tile up over its
  rows, and diagonals are summed afterwards, over (T, T) for every few rows. A candidate's position is not its
  slot: its rows of the gradient, (rows, M, T), are shifted afterwards.
- Time: the buckets that a tile's gaps can reach are known from the first and last times of its queries and
  keys; one masked sum over the tile for each of them goes into the program's own histogram. Tiles away from
  the diagonal reach few.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

from suan_jax.kernels import attention_tile as tile
from suan_jax.kernels import attention_visits as visits
from suan_jax.kernels import time_cells
from suan_jax.kernels.attention_tile import Cut, Launch, Side, Specs, same
from suan_jax.kernels.time_cells import BINS

_CHUNK = 4  # buckets summed together


def table_gradients(
    launch: Launch,
    cut: Cut,
    arrays: dict[str, jax.Array],
    edges: tuple[int, ...],
    slopes: jax.Array,
    first: jax.Array,
) -> dict[str, jax.Array]:
    """The gradients of the tables from some rows of the batch.

    Args:
      launch: what is computed.
      cut: how the kernel is cut.
      arrays: as `attention_bias.fill` takes; with time weights also what `reach` returns.
      edges: the first integer of each time bucket.
      slopes: as `backward_queries` returns them for those rows.
      first: (1,) int32, the first of the rows.

    Returns:
      As far as the tables exist: time, (BINS,), of the weight of each bucket, the last for unknown times; and
      position, (2n − 1,).
    """
    sums = _reduce(launch, cut, arrays, edges, slopes, first)
    gradients = {}
    if launch.timed:
        gradients["time"] = sums["time"].sum((0, 1, 2, 3))
    if launch.max_tokens:
        gradients["position"] = _position_sums(launch, sums["position"].sum(0))
        if launch.region != "far" and launch.tokens > launch.history:
            # Of one class: the view is (B, T, 1).
            seen_NxT = lax.dynamic_slice_in_dim(arrays["seen"][:, :, 0], first[0], slopes.shape[1])
            gradients["position"] += _candidate_positions(launch, slopes[:, :, 0], seen_NxT)
    return gradients


def reach(launch: Launch, arrays: dict[str, jax.Array], edges: tuple[int, ...]) -> dict[str, jax.Array]:
    """`time_cells.reach` of the blocks of a launch, of the whole batch: low and high."""
    seen = arrays["seen"] >= 0
    times = (jnp.where(seen, arrays[name], -1) for name in ("query_time", "key_time"))
    key_class = (np.arange(launch.classes) - launch.turn) % launch.classes
    low, high = time_cells.reach(*times, launch.block, launch.tiles, key_class, edges)
    return {"low": low, "high": high}


def _reduce(
    launch: Launch,
    cut: Cut,
    arrays: dict[str, jax.Array],
    edges: tuple[int, ...],
    slopes: jax.Array,
    first: jax.Array,
) -> dict[str, jax.Array]:
    """Runs the kernel: time (splits, R, tiles, tiles, BINS) and position (splits, R, P, P), to be summed.

    The latter is without the rows of candidates.
    """
    groups, rows, classes, padded, _ = slopes.shape
    shared, keys = min(cut.rows, rows), launch.key_class
    splits, specs = pl.cdiv(rows, shared), Specs(launch, arrays["seen"].shape[0])
    inputs = {"first": first, "length": arrays["length"], "slopes": slopes}
    slopes_shape = (groups, shared, None, padded, padded)
    in_specs = [specs.one(), specs.whole(arrays["length"])]
    in_specs.append(pl.BlockSpec(slopes_shape, lambda i, j, c, b: (0, b, c, 0, 0)))
    inputs |= {"seen_q": arrays["seen"], "time_q": arrays["query_time"]}
    inputs |= {"seen_k": arrays["seen"], "time_k": arrays["key_time"]}
    in_specs += [specs.integers(side) for side in (same, same, keys, keys)]
    outputs, out_specs = {}, []
    if launch.timed:
        starts = np.append(edges, [time_cells.LAST] * (BINS - len(edges)))
        inputs |= {name: arrays[name] for name in ("low", "high")}
        inputs["edges"] = jnp.asarray(starts, jnp.int32)
        in_specs += [pl.BlockSpec((specs.size, None, None, None), lambda i, j, c, b: (0, c, i, j))] * 2
        in_specs.append(specs.whole(starts))
        outputs["time"] = jax.ShapeDtypeStruct(
            (splits, classes, launch.tiles, launch.tiles, BINS), jnp.float32
        )
        out_specs.append(pl.BlockSpec((None, None, None, None, BINS), lambda i, j, c, b: (b, c, i, j, 0)))
    if launch.max_tokens:
        outputs["position"] = jax.ShapeDtypeStruct((splits, classes, padded, padded), jnp.float32)
        block = (None, None, launch.block, launch.block)
        out_specs.append(pl.BlockSpec(block, lambda i, j, c, b: (b, c, i, j)))
    results = pl.pallas_call(
        functools.partial(_kernel, launch=launch, shared=shared, rows=rows, names=(*inputs, *outputs)),
        grid=(launch.tiles, launch.tiles, classes, splits),
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=list(outputs.values()),
        compiler_params=pltriton.CompilerParams(num_warps=cut.warps, num_stages=cut.stages),
        interpret=launch.interpret,
        name=f"{launch.kind}_attention_{launch.region}_backward_tables",
    )(*inputs.values())
    return dict(zip(outputs, results, strict=True))


def _kernel(*refs, launch, shared, rows, names):
    refs = dict(zip(names, refs, strict=True))
    index, key_index, class_ = pl.program_id(0), pl.program_id(1), pl.program_id(2)
    start = pl.program_id(3) * shared
    first = refs["first"][0] + start
    blank = jnp.zeros((launch.block, launch.block), jnp.float32), jnp.zeros((BINS,), jnp.float32)

    def row_of_batch(place: Any, carry: tuple) -> tuple:
        ranges = visits.key_blocks(launch, index, class_, refs["length"][first + place])
        visited = visits.within(ranges, key_index)
        return lax.cond(visited, functools.partial(visit, place), lambda *x: x, *carry)

    def visit(place: Any, position: jax.Array, bins: jax.Array) -> tuple:
        row, pair = first + place, tile.pair(launch, index, key_index)
        query = tile.load_side(launch, refs["seen_q"], refs["time_q"], index, class_, row, axis=0)
        key_class = launch.key_class(class_)
        key = tile.load_side(launch, refs["seen_k"], refs["time_k"], key_index, key_class, row, axis=1)
        total = sum(
            refs["slopes"][np.int32(group), place, *pair].astype(jnp.float32)
            for group in range(refs["slopes"].shape[0])
        )
        if launch.timed:
            bins = _bin_times(bins, total, query, key, refs["edges"], refs["low"][row], refs["high"][row])
        if launch.max_tokens:
            position += jnp.where(query.slot < launch.history, total, 0.0)
        return position, bins

    position, bins = lax.fori_loop(0, jnp.minimum(shared, rows - start), row_of_batch, blank)
    if launch.timed:
        refs["time"][...] = bins
    if launch.max_tokens:
        refs["position"][...] = position


def _bin_times(
    bins: jax.Array, total: jax.Array, query: Side, key: Side, edges_ref: Any, first: Any, last: Any
) -> jax.Array:
    """Adds a tile to the histogram, a few buckets at a time; sums over keys come first, of queries last."""
    gap = tile.time_gap(query, key)
    bin_ = lax.broadcasted_iota(jnp.int32, (BINS, _CHUNK), 0)
    which = lax.broadcasted_iota(jnp.int32, (1, _CHUNK), 1)

    def step(chunk: jax.Array, carry: tuple) -> tuple:
        bins, above = carry
        bucket = first + chunk * _CHUNK
        sums = jnp.zeros((total.shape[0], _CHUNK), jnp.float32)
        for i in range(_CHUNK):
            beyond = jnp.sum(jnp.where(gap >= edges_ref[bucket + i + 1], total, 0.0), axis=1)
            sums += jnp.where(which == i, (above - beyond)[:, None], 0.0)
            above = beyond
        sums = jnp.where(bin_ == bucket + which, jnp.sum(sums, axis=0)[None, :], 0.0)
        return bins + jnp.sum(sums, axis=1), above

    known = jnp.sum(jnp.where(gap >= 0, total, 0.0), axis=1)
    unknown = jnp.sum(jnp.where(gap < 0, total, 0.0))
    chunks = lax.div(last - first + _CHUNK, _CHUNK)
    bins, _ = lax.fori_loop(0, chunks, step, (bins, known))
    return bins + jnp.where(jnp.arange(BINS) == BINS - 1, unknown, 0.0)


def _position_sums(launch: Launch, pairs_RxPxP: jax.Array) -> jax.Array:
    """The sums of the weights' gradients, (2n − 1,), of those of each pair of rows of the views."""
    total = jnp.zeros((2 * launch.max_tokens - 1,), jnp.float32)
    for class_, diagonals in enumerate(_diagonal_sums(pairs_RxPxP)):
        # Diagonal d of the views is a difference of rows, and every class of keys has a shift of its own.
        shift = (class_ - launch.turn) % launch.classes - class_
        back = (np.arange(diagonals.shape[0]) - diagonals.shape[0] // 2) * launch.classes + shift
        place = back + launch.max_tokens - 1
        kept = np.flatnonzero((place >= 0) & (back <= 0))  # no query sees a later key
        total = total.at[place[kept]].add(diagonals[kept], unique_indices=True)
    return total


def _diagonal_sums(pairs_RxNxN: jax.Array) -> jax.Array:
    """The sums over i of [r, i, i + d] at place d + N, (R, 2·N)."""
    classes, size, _ = pairs_RxNxN.shape
    # Rows turned round and one longer than they are read: each is one to the left of the one before.
    askew = jnp.pad(pairs_RxNxN[:, ::-1], ((0, 0), (0, 0), (1, size)))
    askew = askew.reshape(classes, size * (2 * size + 1))[:, : 2 * size * size]
    return askew.reshape(classes, size, 2 * size).sum(1)


def _candidate_positions(launch: Launch, slopes_GxNxPxP: jax.Array, seen_NxT: jax.Array) -> jax.Array:
    """The sums of the candidates' gradients, (2n − 1,), each row shifted to the candidate's own order."""
    length, middle = launch.history, launch.max_tokens - 1
    slot, query_NxM = jnp.arange(launch.tokens), seen_NxT[:, length:]
    visible_NxMxT = (slot < query_NxM[:, :, None]) | (slot == slot[length:, None])
    visible_NxMxT &= (seen_NxT >= 0)[:, None]  # what no kernel visits was never written
    slopes_GxNxMxT = slopes_GxNxPxP[:, :, length : launch.tokens, : launch.tokens].astype(jnp.float32)
    rows_NxMxT = jnp.where(visible_NxMxT, slopes_GxNxMxT, 0.0).sum(0)
    # A difference order_j − order_i from −L to −1 comes from slot order_i + difference; 0 is the candidate
    # itself.
    slot_NxMxL = jnp.maximum(query_NxM, 0)[:, :, None] + jnp.arange(-length, 0)
    values_NxMxL = jnp.take_along_axis(rows_NxMxT, jnp.maximum(slot_NxMxL, 0), axis=2, mode="clip")
    history_L = jnp.where(slot_NxMxL >= 0, values_NxMxL, 0.0).sum((0, 1))
    own = jnp.einsum("bmm->", rows_NxMxT[:, :, length:])
    total = jnp.zeros((2 * launch.max_tokens - 1,), jnp.float32)
    return total.at[middle - length : middle].set(history_L).at[middle].set(own)
