"""The forward kernel: one program for a block of queries and a few heads, over blocks of their keys."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

from suan_jax.kernels import attention_tile as tile
from suan_jax.kernels import time_cells
from suan_jax.kernels.attention_tile import MASKED, Launch, Tile

LOG2_E = math.log2(math.e)
_PRECISION = lax.Precision.HIGHEST  # of float32 products; bfloat16's are exact


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """a b, summed in float32."""
    return lax.dot_general(
        a,
        b,
        (((1,), (0,)), ((), ())),
        precision=_PRECISION if a.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )


def heads_of(count: int, most: int) -> int:
    """The heads of a program: the largest divisor of `count` that is at most `most`."""
    return max(size for size in range(1, min(count, most) + 1) if count % size == 0)


def specs(launch: Launch, heads: int, tiles: int, block: int) -> dict[str, Any]:
    """How a program finds its part of an array; the grid is (block, heads, class, row of the batch).

    Returns:
      "vectors" for (B, U, R, H, Dh), "integers" for (B, U, R) and "scalars" for (B, R, H, U): each a function
      that takes the grid's class to that of the array, such as `same` or `Launch.key_class`.
    """
    rows, width = tiles * block, launch.width

    def vectors(class_of: Any) -> pl.BlockSpec:
        return pl.BlockSpec((None, rows, None, heads, width), lambda i, h, c, b: (b, 0, class_of(c), h, 0))

    def integers(class_of: Any) -> pl.BlockSpec:
        return pl.BlockSpec((None, rows, None), lambda i, h, c, b: (b, 0, class_of(c)))

    def scalars(class_of: Any) -> pl.BlockSpec:
        return pl.BlockSpec((None, None, heads, rows), lambda i, h, c, b: (b, class_of(c), h, 0))

    return {"vectors": vectors, "integers": integers, "scalars": scalars}


def reach(
    launch: Launch, block: int, arrays: dict[str, jax.Array], edges: tuple[int, ...]
) -> tuple[jax.Array, ...]:
    """`time_cells.reach` of the blocks of a launch, nothing without time weights."""
    if not launch.timed:
        return ()
    seen = arrays["seen"] >= 0
    times = (jnp.where(seen, arrays[name], -1) for name in ("query_time", "key_time"))
    turn = (np.arange(launch.classes) - (launch.window - 1)) % launch.classes
    return time_cells.reach(*times, block, pl.cdiv(launch.rows, block), turn, edges)


def table_spec(table: jax.Array) -> pl.BlockSpec:
    """The whole of a table."""
    return pl.BlockSpec(table.shape, lambda i, h, c, b: (0,) * table.ndim)


LENGTH_SPEC = pl.BlockSpec((1,), lambda i, h, c, b: (b,))


def same(class_: Any) -> Any:
    """The grid's class itself."""
    return class_


def forward(
    launch: Launch,
    cut: Tile,
    arrays: dict[str, jax.Array],
    tables: dict[str, jax.Array],
    edges: tuple[int, ...],
) -> tuple[jax.Array, jax.Array]:
    """Runs the kernel.

    Args:
      launch: what it computes.
      cut: how it is cut.
      arrays: q, k and v, (B, U, R, H, Dh); seen, query_time and key_time, (B, U, R) int32; length, (B,)
        int32.
      tables: position; edge, low and high by cell; and edges and weight by bucket, (BINS,), the last for
        unknown times; as far as they exist, the weights for softmax times log2(e).
      edges: the first integer of each time bucket.

    Returns:
      The outputs, like q, and log2 of the sum of the weights' exponentials, (B, R, H, U) float32, `MASKED`
      where a query sees no key; for silu the latter is not written.
    """
    size, rows, classes, count, _ = arrays["q"].shape
    heads, tiles = heads_of(count, cut.heads), pl.cdiv(rows, cut.block)
    spec = specs(launch, heads, tiles, cut.block)
    keys = launch.key_class
    names = ("q", "k", "v", "seen", "query_time", "seen", "key_time", "length")
    reached = reach(launch, cut.block, arrays, edges)
    out_dtype = arrays["q"].dtype if launch.region == "all" else jnp.float32  # parts are merged afterwards
    return pl.pallas_call(
        functools.partial(_kernel, launch=launch, block=cut.block, heads=heads, names=tuple(tables)),
        grid=(tiles, count // heads, classes, size),
        in_specs=[
            spec["vectors"](same),
            spec["vectors"](keys),
            spec["vectors"](keys),
            spec["integers"](same),
            spec["integers"](same),
            spec["integers"](keys),
            spec["integers"](keys),
            LENGTH_SPEC,
            *(table_spec(table) for table in tables.values()),
            *[pl.BlockSpec((None, None, None, tiles), lambda i, h, c, b: (b, c, i, 0))] * len(reached),
        ],
        out_specs=[spec["vectors"](same), spec["scalars"](same)],
        out_shape=[
            jax.ShapeDtypeStruct(arrays["q"].shape, out_dtype),
            jax.ShapeDtypeStruct((size, classes, count, rows), jnp.float32),
        ],
        compiler_params=pltriton.CompilerParams(num_warps=cut.warps, num_stages=cut.stages),
        interpret=launch.interpret,
        name=f"{launch.kind}_attention_{launch.region}",
    )(*(arrays[name] for name in names), *tables.values(), *reached)


def _kernel(
    q_ref, k_ref, v_ref, seen_q, time_q, seen_k, time_k, length_ref, *refs, launch, block, heads, names
):
    tables, (*reached, out_ref, sum_ref) = dict(zip(names, refs, strict=False)), refs[len(names) :]
    index, class_ = pl.program_id(0), pl.program_id(2)
    start, softmax = index * block, launch.kind == "softmax"
    query = tile.load_side(launch, seen_q, time_q, start, block, class_, axis=0)
    q = [tile.load_rows(launch, q_ref, start, block, head) for head in range(heads)]

    def body(key_index: Any, carry: tuple) -> tuple:
        first = key_index * block
        key = tile.load_side(launch, seen_k, time_k, first, block, launch.key_class(class_), axis=1)
        bias = tile.bias(launch, tables, query, key, tile.reach_of(reached, key_index))
        update = _softmax if softmax else _silu
        return tuple(
            update(
                launch,
                carry[head],
                dot(q[head], tile.load_rows(launch, k_ref, first, block, head).T),
                bias,
                tile.load_rows(launch, v_ref, first, block, head),
            )
            for head in range(heads)
        )

    out = jnp.zeros((block, launch.width), jnp.float32)
    blank = (
        (out, jnp.full((block,), MASKED, jnp.float32), jnp.zeros((block,), jnp.float32))
        if softmax
        else (out,)
    )
    ranges = tile.key_blocks(launch, block, index, class_, length_ref[0])
    for head, (out, *rest) in enumerate(tile.loop(ranges, body, (blank,) * heads)):
        if softmax:
            top, total = rest
            some = top > MASKED / 2
            total = jnp.where(some, total, 1.0)
            out = jnp.where(some[:, None], out / total[:, None], 0.0)
            log_sum = jnp.where(some, top + jnp.log2(total), MASKED)
            tile.store_sum(launch, sum_ref, start, block, head, log_sum)
        tile.store_rows(launch, out_ref, start, block, head, out)


def _softmax(launch: Launch, carry: tuple, product: jax.Array, bias: jax.Array, v: jax.Array) -> tuple:
    """Adds a tile to the running output, largest score and sum of exponentials, all to the base 2."""
    out, top, total = carry
    score = product * (launch.scale * LOG2_E) + bias
    new_top = jnp.maximum(top, score.max(axis=1))
    weight = jnp.exp2(score - new_top[:, None])
    shrink = jnp.exp2(top - new_top)
    out = out * shrink[:, None] + dot(weight.astype(v.dtype), v)
    return out, new_top, total * shrink + weight.sum(axis=1)


def _silu(launch: Launch, carry: tuple, product: jax.Array, bias: jax.Array, v: jax.Array) -> tuple:
    """Adds a tile to the running output; a masked score's weight is zero."""
    score = product * launch.scale + bias
    weight = score * sigmoid(score) * (1 / launch.divisor)
    return (carry[0] + dot(weight.astype(v.dtype), v),)


def sigmoid(x: jax.Array) -> jax.Array:
    """1 / (1 + e^−x)."""
    return 1 / (1 + jnp.exp2(x * -LOG2_E))
