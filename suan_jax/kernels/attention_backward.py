"""The backward kernels: one for the queries and the bias tables, one for the keys and values.

Scores are computed again. The first kernel also sums the gradient of the scores over the heads of a program
and reduces that sum, tile by tile, to the tables: no two programs write to one address, so the result does
not depend on their order.

- Time: the buckets that a tile's gaps reach are known from its smallest and largest gap; one masked sum over
  the tile for each of them goes into the program's own histogram. Tiles away from the diagonal reach few.
- Position: between history slots the weight depends on the diagonal. A tile is written to the program's own
  patch of memory and read back askew, so that diagonals become columns. A candidate's position is not its
  slot: its rows of the gradient, (B, M, T), are written out and shifted afterwards.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from suan_jax.kernels import attention_tile as tile
from suan_jax.kernels import time_cells
from suan_jax.kernels.attention_forward import (
    LENGTH_SPEC,
    LOG2_E,
    dot,
    heads_of,
    same,
    sigmoid,
    specs,
    table_spec,
)
from suan_jax.kernels.attention_tile import MASKED, Launch, Side, Tile

BINS = time_cells.CELLS  # of a program's histogram: the buckets, and the last for unknown times


def _weights(launch: Launch, score: jax.Array, log_sum: Any, base: Any) -> tuple[jax.Array, jax.Array]:
    """A tile's weights, and their derivatives by the scores but for the softmax's coupling."""
    if launch.kind == "softmax":
        weight = jnp.exp2(score - log_sum)
        return weight, weight
    gate = sigmoid(score)
    weight = score * gate * (1 / launch.divisor)
    return weight, gate * (1 / launch.divisor) + weight * (1 - gate)


def _scale(launch: Launch) -> float:
    return launch.scale * (LOG2_E if launch.kind == "softmax" else 1.0)


def _load_sum(ref: Any, head: int, start: Any, block: int, launch: Launch, other: float) -> jax.Array:
    inside = start + jnp.arange(block) < launch.rows
    value = plt.load(ref.at[np.int32(head), pl.ds(start, block)], mask=inside, other=other)
    return jnp.where(
        value > MASKED / 2, value, 0.0
    )  # a row without keys: its scores alone make all weights zero


def backward_queries(
    launch: Launch, cut: Tile, arrays: dict[str, jax.Array], tables: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    """Runs the first kernel.

    Args:
      launch: what it computes.
      cut: how it is cut.
      arrays: as `forward` takes, and out and out_gradient like q, and log_sum as `forward` returns it.
      tables: as `forward` takes, and edges (BINS,) int32, the first integer of each bucket.

    Returns:
      q (the gradient, like q, float32 for a part); dots (B, R, H, U), the products of out and its gradient;
      time (B, R, groups, blocks, BINS), position (B, R, groups, blocks, blocks, 2·block) and candidates
      (B, groups, M, T) as the module says, as far as the tables exist.
    """
    size, rows, classes, count, _ = arrays["q"].shape
    heads, block = heads_of(count, cut.heads), cut.block
    groups, tiles = count // heads, pl.cdiv(rows, block)
    spec, keys = specs(launch, heads, tiles, block), launch.key_class
    softmax = launch.kind == "softmax"
    names = ["q", "k", "v", "out_gradient", *(("out", "log_sum") if softmax else ())]
    in_specs = [spec["vectors"](same), spec["vectors"](keys), spec["vectors"](keys), spec["vectors"](same)]
    in_specs += [spec["vectors"](same), spec["scalars"](same)] if softmax else []
    names += ["seen", "query_time", "seen", "key_time", "length"]
    in_specs += [spec["integers"](side) for side in (same, same, keys, keys)] + [LENGTH_SPEC]
    inputs = {**dict(enumerate(arrays[name] for name in names)), **tables}
    in_specs += [table_spec(table) for table in tables.values()]

    outputs = {
        "q": jax.ShapeDtypeStruct(
            arrays["q"].shape, arrays["q"].dtype if launch.region == "all" else jnp.float32
        )
    }
    out_specs = [spec["vectors"](same)]
    if softmax:
        outputs["dots"] = jax.ShapeDtypeStruct((size, classes, count, rows), jnp.float32)
        out_specs.append(spec["scalars"](same))
    if launch.timed:
        outputs["time"] = jax.ShapeDtypeStruct((size, classes, groups, tiles, BINS), jnp.float32)
        out_specs.append(pl.BlockSpec((None, None, None, None, BINS), lambda i, h, c, b: (b, c, h, i, 0)))
    aliases = {}
    if launch.max_tokens:
        private = (size, classes, groups, tiles)
        outputs["patch"] = jax.ShapeDtypeStruct((*private, block, 2 * block), jnp.float32)
        out_specs.append(
            pl.BlockSpec((None,) * 4 + (block, 2 * block), lambda i, h, c, b: (b, c, h, i, 0, 0))
        )
        zeros = {"position": jnp.zeros((*private, tiles, 2 * block), jnp.float32)}
        zero_specs = [pl.BlockSpec((None,) * 4 + (tiles, 2 * block), lambda i, h, c, b: (b, c, h, i, 0, 0))]
        candidates = launch.tokens - launch.history
        if candidates and launch.region != "far":
            zeros["candidates"] = jnp.zeros((size, groups, candidates, tiles * block), jnp.float32)
            zero_specs.append(
                pl.BlockSpec((None, None, candidates, tiles * block), lambda i, h, c, b: (b, h, 0, 0))
            )
        for name, zero in zeros.items():  # tiles that are not visited stay zero
            aliases[len(inputs)] = len(outputs)
            inputs["zero " + name], outputs[name] = zero, jax.ShapeDtypeStruct(zero.shape, zero.dtype)
        in_specs, out_specs = in_specs + zero_specs, out_specs + zero_specs
    results = pl.pallas_call(
        functools.partial(
            _queries_kernel,
            launch=launch,
            block=block,
            heads=heads,
            tables=tuple(tables),
            outputs=tuple(outputs),
        ),
        grid=(tiles, groups, classes, size),
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=list(outputs.values()),
        input_output_aliases=aliases,
        compiler_params=plt.CompilerParams(num_warps=cut.warps, num_stages=cut.stages),
        interpret=launch.interpret,
        name=f"{launch.kind}_attention_{launch.region}_backward_queries",
    )(*inputs.values())
    return dict(zip(outputs, results, strict=True))


def _queries_kernel(*refs, launch, block, heads, tables, outputs):
    softmax = launch.kind == "softmax"
    q_ref, k_ref, v_ref, gradient_ref, *refs = refs
    if softmax:
        out_ref, sum_ref, *refs = refs
    seen_q, time_q, seen_k, time_k, length_ref, *refs = refs
    table = dict(zip(tables, refs, strict=False))
    written = dict(zip(outputs, refs[-len(outputs) :], strict=True))
    index, class_ = pl.program_id(0), pl.program_id(2)
    start = index * block
    query = tile.load_side(launch, seen_q, time_q, start, block, class_, axis=0)
    q, gradient, log_sum, dots = [], [], [], []
    for head in range(heads):
        q.append(tile.load_rows(launch, q_ref, start, block, head))
        gradient.append(tile.load_rows(launch, gradient_ref, start, block, head))
        if softmax:
            out = tile.load_rows(launch, out_ref, start, block, head).astype(jnp.float32)
            dots.append(jnp.sum(out * gradient[head].astype(jnp.float32), axis=1))
            log_sum.append(_load_sum(sum_ref, head, start, block, launch, 0.0))
            inside = start + jnp.arange(block) < launch.rows
            plt.store(written["dots"].at[np.int32(head), pl.ds(start, block)], dots[head], mask=inside)

    def body(key_index: Any, carry: tuple) -> tuple:
        q_gradient, bins = carry
        first = key_index * block
        key = tile.load_side(launch, seen_k, time_k, first, block, launch.key_class(class_), axis=1)
        bias = tile.bias(launch, table, query, key)
        total, next_gradient = jnp.zeros((block, block), jnp.float32), []
        for head in range(heads):
            k = tile.load_rows(launch, k_ref, first, block, head)
            v = tile.load_rows(launch, v_ref, first, block, head)
            score = dot(q[head], k.T) * _scale(launch) + bias
            _, slope = _weights(launch, score, log_sum[head][:, None] if softmax else None, None)
            coupled = dot(gradient[head], v.T)
            slope = slope * (coupled - dots[head][:, None] if softmax else coupled)
            total += slope
            next_gradient.append(q_gradient[head] + dot(slope.astype(k.dtype), k))
        if launch.timed:
            bins = _bin_times(launch, bins, total, query, key, table["edges"])
        if launch.max_tokens:
            _write_positions(launch, written, total, query, key_index, index)
        return tuple(next_gradient), bins

    if launch.max_tokens:
        written["patch"][...] = jnp.zeros((block, 2 * block), jnp.float32)
    zero = jnp.zeros((block, launch.width), jnp.float32)
    ranges = tile.key_blocks(launch, block, index, class_, length_ref[0])
    q_gradient, bins = tile.loop(ranges, body, ((zero,) * heads, jnp.zeros((BINS,), jnp.float32)))
    for head in range(heads):
        tile.store_rows(launch, written["q"], start, block, head, q_gradient[head] * launch.scale)
    if launch.timed:
        written["time"][...] = bins


def _bin_times(
    launch: Launch, bins: jax.Array, total: jax.Array, query: Side, key: Side, edges_ref: Any
) -> jax.Array:
    """Adds a tile to the histogram."""
    gap = tile.time_gap(query, key)
    counted = tile.sees(launch, query, key) & (gap >= 0)
    edges = edges_ref[...]
    low = jnp.min(jnp.where(counted, gap, time_cells.LAST))
    high = jnp.max(jnp.where(counted, gap, -1))
    first, last = (
        jnp.maximum(jnp.sum(((edges <= x) & (edges < time_cells.LAST)).astype(jnp.int32)) - 1, 0)
        for x in (low, high)
    )
    bin_ = jnp.arange(BINS, dtype=jnp.int32)

    def step(bucket: jax.Array, carry: tuple) -> tuple:
        bins, above = carry
        beyond = jnp.sum(jnp.where(gap >= edges_ref[bucket], total, 0.0))
        return bins + jnp.where(bin_ == bucket - 1, above - beyond, 0.0), beyond

    known = jnp.sum(jnp.where(gap >= 0, total, 0.0))
    unknown = jnp.sum(jnp.where(gap < 0, total, 0.0))
    bins, above = lax.fori_loop(first + 1, last + 1, step, (bins, known))
    return bins + jnp.where(bin_ == last, above, 0.0) + jnp.where(bin_ == BINS - 1, unknown, 0.0)


def _write_positions(
    launch: Launch, written: dict, total: jax.Array, query: Side, key_index: Any, index: Any
):
    """Writes the sums of a tile's diagonals, and its rows of candidates."""
    block = total.shape[0]
    patch = written["patch"]
    row = lax.broadcasted_iota(jnp.int32, (block, block), 0)
    column = lax.broadcasted_iota(jnp.int32, (block, block), 1)
    if not launch.interpret:
        plt.debug_barrier()  # the last tile has been read
    patch[row, column - row + (block - 1)] = jnp.where(query.slot < launch.history, total, 0.0)
    if not launch.interpret:
        plt.debug_barrier()
    for half in range(2):
        columns = pl.ds(half * block, block)
        written["position"][key_index, columns] = jnp.sum(patch[:, columns], axis=0)
    if "candidates" not in written:
        return
    start = index * block
    first = jnp.maximum(start, launch.history)

    def row_of(slot: jax.Array, carry: jax.Array) -> jax.Array:
        value = jnp.sum(jnp.where(query.slot == slot, total, 0.0), axis=0)
        written["candidates"][slot - launch.history, pl.ds(key_index * block, block)] = value
        return carry

    lax.fori_loop(first, jnp.minimum(start + block, launch.tokens), row_of, 0)


def backward_keys(
    launch: Launch, cut: Tile, arrays: dict[str, jax.Array], tables: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Runs the second kernel; arguments as in `backward_queries`, and dots as it returns it.

    Returns:
      The gradients of k and of v, like k, float32 for a part.
    """
    size, rows, classes, count, _ = arrays["k"].shape
    heads, block = heads_of(count, cut.heads), cut.block
    tiles = pl.cdiv(rows, block)
    spec, queries = specs(launch, heads, tiles, block), launch.query_class
    softmax = launch.kind == "softmax"
    names = ["q", "k", "v", "out_gradient", *(("log_sum", "dots") if softmax else ())]
    names += ["seen", "query_time", "seen", "key_time", "length"]
    in_specs = [spec["vectors"](side) for side in (queries, same, same, queries)]
    in_specs += [spec["scalars"](queries)] * 2 if softmax else []
    in_specs += [spec["integers"](side) for side in (queries, queries, same, same)] + [LENGTH_SPEC]
    like = jax.ShapeDtypeStruct(
        arrays["k"].shape, arrays["k"].dtype if launch.region == "all" else jnp.float32
    )
    return pl.pallas_call(
        functools.partial(_keys_kernel, launch=launch, block=block, heads=heads, tables=tuple(tables)),
        grid=(tiles, count // heads, classes, size),
        in_specs=[*in_specs, *(table_spec(table) for table in tables.values())],
        out_specs=[spec["vectors"](same)] * 2,
        out_shape=[like, like],
        compiler_params=plt.CompilerParams(num_warps=cut.warps, num_stages=cut.stages),
        interpret=launch.interpret,
        name=f"{launch.kind}_attention_{launch.region}_backward_keys",
    )(*(arrays[name] for name in names), *tables.values())


def _keys_kernel(*refs, launch, block, heads, tables):
    softmax = launch.kind == "softmax"
    q_ref, k_ref, v_ref, gradient_ref, *refs = refs
    if softmax:
        sum_ref, dots_ref, *refs = refs
    seen_q, time_q, seen_k, time_k, length_ref, *refs = refs
    table, (k_gradient_ref, v_gradient_ref) = dict(zip(tables, refs, strict=False)), refs[len(tables) :]
    index, class_ = pl.program_id(0), pl.program_id(2)
    start = index * block
    key = tile.load_side(launch, seen_k, time_k, start, block, class_, axis=0)
    k = [tile.load_rows(launch, k_ref, start, block, head) for head in range(heads)]
    v = [tile.load_rows(launch, v_ref, start, block, head) for head in range(heads)]

    def body(query_index: Any, carry: tuple) -> tuple:
        first, gradients = query_index * block, []
        query = tile.load_side(launch, seen_q, time_q, first, block, launch.query_class(class_), axis=1)
        bias = tile.bias(
            launch, table, query, key
        )  # keys down, queries across: the products need no transpose
        for head in range(heads):
            k_gradient, v_gradient = carry[head]
            q = tile.load_rows(launch, q_ref, first, block, head)
            gradient = tile.load_rows(launch, gradient_ref, first, block, head)
            score = dot(k[head], q.T) * _scale(launch) + bias
            log_sum = _load_sum(sum_ref, head, first, block, launch, 0.0)[None, :] if softmax else None
            weight, slope = _weights(launch, score, log_sum, None)
            v_gradient += dot(weight.astype(gradient.dtype), gradient)
            coupled = dot(v[head], gradient.T)
            if softmax:
                inside = first + jnp.arange(block) < launch.rows
                dots = plt.load(dots_ref.at[np.int32(head), pl.ds(first, block)], mask=inside, other=0.0)
                coupled -= dots[None, :]
            k_gradient += dot((slope * coupled).astype(q.dtype), q)
            gradients.append((k_gradient, v_gradient))
        return tuple(gradients)

    zero = jnp.zeros((block, launch.width), jnp.float32)
    ranges = tile.query_blocks(launch, block, index, class_, length_ref[0])
    for head, (k_gradient, v_gradient) in enumerate(tile.loop(ranges, body, ((zero, zero),) * heads)):
        tile.store_rows(launch, k_gradient_ref, start, block, head, k_gradient * launch.scale)
        tile.store_rows(launch, v_gradient_ref, start, block, head, v_gradient)
