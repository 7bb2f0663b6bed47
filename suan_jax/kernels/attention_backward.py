"""The backward kernels for q, and for k and v; the scores are computed again."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

from suan_jax.kernels import attention_tile as tile
from suan_jax.kernels.attention_forward import (
    LENGTH_SPEC,
    LOG2_E,
    dot,
    heads_of,
    reach,
    same,
    sigmoid,
    specs,
    table_spec,
)
from suan_jax.kernels.attention_tile import Launch, Tile


def weights(
    launch: Launch, product: jax.Array, bias: jax.Array, coupled: jax.Array, sums: Any
) -> tuple[jax.Array, jax.Array]:
    """A tile's weights, and the gradient of its scores.

    Args:
      launch: what is computed.
      product: q kᵀ.
      bias: the tile's biases.
      coupled: the products of out's gradient and v.
      sums: for softmax, log_sum and dots of the queries, along the tile's axis of queries.
    """
    if launch.kind == "softmax":
        log_sum, dots = sums
        weight = jnp.exp2(product * (launch.scale * LOG2_E) + bias - log_sum)
        return weight, weight * (coupled - dots)
    score = product * launch.scale + bias
    gate = sigmoid(score)
    weight = score * gate * (1 / launch.divisor)
    return weight, (gate * (1 / launch.divisor) + weight * (1 - gate)) * coupled


def backward_queries(
    launch: Launch,
    cut: Tile,
    arrays: dict[str, jax.Array],
    tables: dict[str, jax.Array],
    edges: tuple[int, ...],
) -> tuple[jax.Array, jax.Array | None]:
    """Runs the kernel for the queries.

    Args:
      launch: what it computes.
      cut: how it is cut.
      arrays: as `forward` takes, and out and out_gradient like q, and log_sum as `forward` returns it.
      tables: as `forward` takes.
      edges: likewise.

    Returns:
      The gradient of q, like q, float32 for a part; and for softmax the products of out and its gradient,
      (B, R, H, U) float32.
    """
    size, rows, classes, count, _ = arrays["q"].shape
    heads, block = heads_of(count, cut.heads), cut.block
    spec, keys = specs(launch, heads, pl.cdiv(rows, block), block), launch.key_class
    softmax = launch.kind == "softmax"
    names = ["q", "k", "v", "out_gradient", *(("out", "log_sum") if softmax else ())]
    names += ["seen", "query_time", "seen", "key_time", "length"]
    in_specs = [spec["vectors"](side) for side in (same, keys, keys, same)]
    in_specs += [spec["vectors"](same), spec["scalars"](same)] if softmax else []
    in_specs += [spec["integers"](side) for side in (same, same, keys, keys)] + [LENGTH_SPEC]
    out_specs, out_shape = [spec["vectors"](same)], [gradient_like(launch, arrays["q"])]
    if softmax:
        out_specs.append(spec["scalars"](same))
        out_shape.append(jax.ShapeDtypeStruct((size, classes, count, rows), jnp.float32))
    reached, tiles = reach(launch, block, arrays, edges), pl.cdiv(rows, block)
    in_specs += [table_spec(table) for table in tables.values()]
    in_specs += [pl.BlockSpec((None, None, None, tiles), lambda i, h, c, b: (b, c, i, 0))] * len(reached)
    gradient, *dots = pl.pallas_call(
        functools.partial(_queries_kernel, launch=launch, block=block, heads=heads, tables=tuple(tables)),
        grid=(tiles, count // heads, classes, size),
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=out_shape,
        compiler_params=pltriton.CompilerParams(num_warps=cut.warps, num_stages=cut.stages),
        interpret=launch.interpret,
        name=f"{launch.kind}_attention_{launch.region}_backward_queries",
    )(*(arrays[name] for name in names), *tables.values(), *reached)
    return gradient, dots[0] if dots else None


def gradient_like(launch: Launch, x: jax.Array) -> jax.ShapeDtypeStruct:
    """The gradient of x: of a part, which is added to another's, in float32."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype if launch.region == "all" else jnp.float32)


def _queries_kernel(*refs, launch, block, heads, tables):
    softmax = launch.kind == "softmax"
    q_ref, k_ref, v_ref, gradient_ref, *refs = refs
    if softmax:
        out_ref, sum_ref, *refs = refs
    seen_q, time_q, seen_k, time_k, length_ref, *refs = refs
    table, refs = dict(zip(tables, refs, strict=False)), refs[len(tables) :]
    reached, (q_gradient_ref, *dots_ref) = refs[: 2 * launch.timed], refs[2 * launch.timed :]
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
            log_sum.append(tile.load_sum(launch, sum_ref, start, block, head))
            tile.store_sum(launch, dots_ref[0], start, block, head, dots[head])

    def body(key_index: Any, carry: tuple) -> tuple:
        first, next_carry = key_index * block, []
        key = tile.load_side(launch, seen_k, time_k, first, block, launch.key_class(class_), axis=1)
        bias = tile.bias(launch, table, query, key, tile.reach_of(reached, key_index))
        for head in range(heads):
            k = tile.load_rows(launch, k_ref, first, block, head)
            v = tile.load_rows(launch, v_ref, first, block, head)
            coupled = dot(gradient[head], v.T)
            sums = (log_sum[head][:, None], dots[head][:, None]) if softmax else None
            _, slope = weights(launch, dot(q[head], k.T), bias, coupled, sums)
            next_carry.append(carry[head] + dot(slope.astype(k.dtype), k))
        return tuple(next_carry)

    zero = jnp.zeros((block, launch.width), jnp.float32)
    ranges = tile.key_blocks(launch, block, index, class_, length_ref[0])
    for head, q_gradient in enumerate(tile.loop(ranges, body, (zero,) * heads)):
        tile.store_rows(launch, q_gradient_ref, start, block, head, q_gradient * launch.scale)


def backward_keys(
    launch: Launch,
    cut: Tile,
    arrays: dict[str, jax.Array],
    tables: dict[str, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Runs the kernel for the keys; arguments as of `backward_queries`, and dots as it returns them.

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
    in_specs += [table_spec(table) for table in tables.values()]
    like = gradient_like(launch, arrays["k"])
    return pl.pallas_call(
        functools.partial(_keys_kernel, launch=launch, block=block, heads=heads, tables=tuple(tables)),
        grid=(tiles, count // heads, classes, size),
        in_specs=in_specs,
        out_specs=[spec["vectors"](same)] * 2,
        out_shape=[like, like],
        compiler_params=pltriton.CompilerParams(num_warps=cut.warps, num_stages=cut.stages),
        interpret=launch.interpret,
        name=f"{launch.kind}_attention_{launch.region}_backward_keys",
    )(*(arrays[name] for name in names), *tables.values())


def _keys_kernel(*refs, launch, block, heads, tables):
    softmax = launch.kind == "softmax"
    q_ref, k_ref, v_ref, gradient_ref, *refs = refs
    if softmax:
        sum_ref, dots_ref, *refs = refs
    seen_q, time_q, seen_k, time_k, length_ref, *refs = refs
    table, refs = dict(zip(tables, refs, strict=False)), refs[len(tables) :]
    k_gradient_ref, v_gradient_ref = refs
    index, class_ = pl.program_id(0), pl.program_id(2)
    start = index * block
    key = tile.load_side(launch, seen_k, time_k, start, block, class_, axis=0)
    k = [tile.load_rows(launch, k_ref, start, block, head) for head in range(heads)]
    v = [tile.load_rows(launch, v_ref, start, block, head) for head in range(heads)]

    def body(query_index: Any, carry: tuple) -> tuple:
        first, gradients = query_index * block, []
        query = tile.load_side(launch, seen_q, time_q, first, block, launch.query_class(class_), axis=1)
        # Keys down, queries across: the products need no transpose.
        bias = tile.bias(launch, table, query, key)
        for head in range(heads):
            k_gradient, v_gradient = carry[head]
            q = tile.load_rows(launch, q_ref, first, block, head)
            gradient = tile.load_rows(launch, gradient_ref, first, block, head)
            coupled = dot(v[head], gradient.T)
            sums = None
            if softmax:
                sums = tuple(
                    tile.load_sum(launch, ref, first, block, head)[None, :] for ref in (sum_ref, dots_ref)
                )
            weight, slope = weights(launch, dot(k[head], q.T), bias, coupled, sums)
            v_gradient += dot(weight.astype(gradient.dtype), gradient)
            k_gradient += dot(slope.astype(q.dtype), q)
            gradients.append((k_gradient, v_gradient))
        return tuple(gradients)

    zero = jnp.zeros((block, launch.width), jnp.float32)
    ranges = tile.query_blocks(launch, block, index, class_, length_ref[0])
    for head, (k_gradient, v_gradient) in enumerate(tile.loop(ranges, body, ((zero, zero),) * heads)):
        tile.store_rows(launch, k_gradient_ref, start, block, head, k_gradient * launch.scale)
        tile.store_rows(launch, v_gradient_ref, start, block, head, v_gradient)
