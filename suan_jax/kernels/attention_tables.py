"""The backward kernel for the bias tables: one program for a tile of pairs, over some rows and all heads.

The gradient of the scores is summed over the heads of a tile, and then reduced without two programs writing
to one address, so that the result does not depend on their order.

- Position: between history slots the weight depends on the slots alone. A program adds its tile up over its
  rows, and diagonals are summed afterwards, over (T, T) for every few rows. A candidate's position is not its
  slot: its rows of the gradient, (B, M, T), are written out, and shifted afterwards.
- Time: the buckets that a tile's gaps can reach are known from the first and last times of its queries and
  keys; one masked sum over the tile for each of them goes into the program's own histogram. Tiles away from
  the diagonal reach few.
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
from suan_jax.kernels.attention_backward import weights
from suan_jax.kernels.attention_forward import dot, heads_of, reach, same, table_spec
from suan_jax.kernels.attention_tile import Launch, Side, Tile
from suan_jax.kernels.time_cells import BINS

_CHUNK = 4  # buckets summed together


def backward_tables(
    launch: Launch,
    cut: Tile,
    arrays: dict[str, jax.Array],
    tables: dict[str, jax.Array],
    edges: tuple[int, ...],
) -> dict[str, jax.Array]:
    """Runs the kernel.

    Args:
      launch: what it computes.
      cut: how it is cut.
      arrays: as `backward_keys` takes.
      tables: as `forward` takes.
      edges: the first integer of each time bucket.

    Returns:
      As far as the tables exist: time, (BINS,), the gradient of the weight of each bucket, the last for
      unknown times; position (R, rows, rows), that of each pair of rows of the views, summed over the batch;
      candidates, (B, M, T), the rows of the candidates, history and then themselves.
    """
    size, rows, classes, count, _ = arrays["q"].shape
    shared, block = heads_of(size, cut.rows), cut.block
    tiles, splits = pl.cdiv(rows, block), size // shared
    softmax, candidates = launch.kind == "softmax", launch.tokens - launch.history

    def vectors(class_of: Any) -> pl.BlockSpec:
        shape = (shared, tiles * block, None, count, launch.width)
        return pl.BlockSpec(shape, lambda i, j, c, b: (b, 0, class_of(c), 0, 0))

    def integers(class_of: Any) -> pl.BlockSpec:
        return pl.BlockSpec((shared, tiles * block, None), lambda i, j, c, b: (b, 0, class_of(c)))

    sums = pl.BlockSpec((shared, None, count, tiles * block), lambda i, j, c, b: (b, c, 0, 0))
    keys = launch.key_class
    inputs = {name: arrays[name] for name in ("q", "k", "v", "out_gradient")}
    in_specs = [vectors(side) for side in (same, keys, keys, same)]
    if softmax:
        inputs |= {name: arrays[name] for name in ("log_sum", "dots")}
        in_specs += [sums, sums]
    inputs |= {"seen_q": arrays["seen"], "time_q": arrays["query_time"]}
    inputs |= {"seen_k": arrays["seen"], "time_k": arrays["key_time"], "length": arrays["length"]}
    in_specs += [integers(side) for side in (same, same, keys, keys)]
    in_specs.append(pl.BlockSpec((shared,), lambda i, j, c, b: (b,)))
    inputs |= tables
    in_specs += [table_spec(table) for table in tables.values()]

    outputs, out_specs, aliases = {}, [], {}
    if launch.timed:
        first, last = reach(launch, block, arrays, edges)
        inputs |= {"first": first, "last": last}
        in_specs += [pl.BlockSpec((shared, None, None, None), lambda i, j, c, b: (b, c, i, j))] * 2
        outputs["time"] = jax.ShapeDtypeStruct((splits, classes, tiles, tiles, BINS), jnp.float32)
        out_specs.append(pl.BlockSpec((None, None, None, None, BINS), lambda i, j, c, b: (b, c, i, j, 0)))
    if launch.max_tokens:
        padded = tiles * block
        outputs["position"] = jax.ShapeDtypeStruct((splits, classes, padded, padded), jnp.float32)
        out_specs.append(pl.BlockSpec((None, None, block, block), lambda i, j, c, b: (b, c, i, j)))
        if candidates and launch.region != "far":
            zero = jnp.zeros((size, candidates, padded), jnp.float32)  # tiles not visited stay zero
            aliases[len(inputs)] = len(outputs)
            inputs["zero"], outputs["candidates"] = zero, jax.ShapeDtypeStruct(zero.shape, zero.dtype)
            spec = pl.BlockSpec((shared, candidates, padded), lambda i, j, c, b: (b, 0, 0))
            in_specs.append(spec)
            out_specs.append(spec)
    kernel = functools.partial(
        _kernel,
        launch=launch,
        block=block,
        shared=shared,
        heads=count,
        inputs=(*inputs,),
        outputs=(*outputs,),
    )
    results = pl.pallas_call(
        kernel,
        grid=(tiles, tiles, classes, splits),
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=list(outputs.values()),
        input_output_aliases=aliases,
        compiler_params=pltriton.CompilerParams(num_warps=cut.warps, num_stages=cut.stages),
        interpret=launch.interpret,
        name=f"{launch.kind}_attention_{launch.region}_backward_tables",
    )(*inputs.values())
    results = dict(zip(outputs, results, strict=True))
    if "time" in results:
        results["time"] = results["time"].sum((0, 1, 2, 3))
    if "position" in results:
        results["position"] = results["position"].sum(0)
    return results


def _kernel(*refs, launch, block, shared, heads, inputs, outputs):
    given = dict(zip(inputs, refs, strict=False))
    written = dict(zip(outputs, refs[len(inputs) :], strict=True))
    index, key_index, class_ = pl.program_id(0), pl.program_id(1), pl.program_id(2)
    start, first = index * block, key_index * block
    blank = jnp.zeros((block, block), jnp.float32), jnp.zeros((BINS,), jnp.float32)

    def row_of_batch(row: Any, carry: tuple) -> tuple:
        ranges = tile.key_blocks(launch, block, index, class_, given["length"][row])
        visited = [(key_index >= low) & (key_index < high) for low, high in ranges]
        return lax.cond(visited[0] | visited[1], functools.partial(visit, row), lambda *x: x, *carry)

    def visit(row: Any, position: jax.Array, bins: jax.Array) -> tuple:
        query = tile.load_side(
            launch, given["seen_q"], given["time_q"], start, block, class_, axis=0, row=row
        )
        key = tile.load_side(
            launch, given["seen_k"], given["time_k"], first, block, launch.key_class(class_), axis=1, row=row
        )
        reached = [given[name][row] for name in ("first", "last")] if launch.timed else [None, None]
        bias = tile.bias(launch, given, query, key)

        def add_head(head: Any, total: jax.Array) -> jax.Array:
            q, gradient = (
                tile.load_rows(launch, given[n], start, block, head, row) for n in ("q", "out_gradient")
            )
            k, v = (tile.load_rows(launch, given[n], first, block, head, row) for n in ("k", "v"))
            sums = None
            if launch.kind == "softmax":
                sums = tuple(
                    tile.load_sum(launch, given[n], start, block, head, row)[:, None]
                    for n in ("log_sum", "dots")
                )
            return total + weights(launch, dot(q, k.T), bias, dot(gradient, v.T), sums)[1]

        total = lax.fori_loop(0, heads, add_head, blank[0])
        if launch.timed:
            bins = _bin_times(bins, total, query, key, given["edges"], *reached)
        if launch.max_tokens:
            position += jnp.where(query.slot < launch.history, total, 0.0)
        if "candidates" in written:
            _write_candidates(launch, written["candidates"], row, total, query, start, first)
        return position, bins

    position, bins = lax.fori_loop(0, shared, row_of_batch, blank)
    if launch.timed:
        written["time"][...] = bins
    if launch.max_tokens:
        written["position"][...] = position


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


def _write_candidates(
    launch: Launch, ref: Any, row: Any, total: jax.Array, query: Side, start: Any, first: Any
) -> None:
    """Writes the rows of a tile that are candidates'."""
    block = total.shape[0]

    def write(slot: jax.Array, carry: jax.Array) -> jax.Array:
        value = jnp.sum(jnp.where(query.slot == slot, total, 0.0), axis=0)
        ref[row, slot - launch.history, pl.ds(first, block)] = value
        return carry

    low = jnp.maximum(start, launch.history)
    lax.fori_loop(low, jnp.minimum(start + block, launch.tokens), write, 0)
