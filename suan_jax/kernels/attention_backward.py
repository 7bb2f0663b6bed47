"""The backward kernels for q, and for k and v; the scores are computed again."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

from suan_jax.kernels import attention_tile as tile
from suan_jax.kernels import attention_visits as visits
from suan_jax.kernels.attention_forward import LOG2_E, dot, sigmoid
from suan_jax.kernels.attention_tile import Cut, Launch, Specs, largest_divisor, same


def _weights(
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
    cut: Cut,
    arrays: dict[str, jax.Array],
    biases: jax.Array,
    first: jax.Array,
    keep_slopes: bool,
) -> dict[str, jax.Array]:
    """Runs the kernel for the queries of some rows of the batch.

    Args:
      launch: what it computes.
      cut: how it is cut.
      arrays: as `forward` takes, and out and out_gradient like q, and log_sum, (B, R, H, U).
      biases: as `forward` takes.
      first: likewise.
      keep_slopes: whether the gradients of the scores are wanted.

    Returns:
      gradient, that of q, (rows, U, R, H, Dh); for softmax dots, the products of out and its gradient,
      (rows, R, H, U) float32; and if wanted slopes, (groups, rows, R, P, P) in the dtype of the biases, the
      gradients of the scores, each the sum over a group of heads; not written where no query sees a key.
    """
    size, rows, classes, count, dim = arrays["q"].shape
    chunk, heads = biases.shape[0], largest_divisor(count, cut.heads)
    specs, keys, softmax = Specs(launch, size, heads), launch.key_class, launch.kind == "softmax"
    names = ["q", "k", "v", "out_gradient", *(("out", "log_sum") if softmax else ()), "length"]
    in_specs = [specs.vectors(side) for side in (same, keys, keys, same)]
    in_specs += [specs.vectors(same), specs.scalars(same)] if softmax else []
    written = {"gradient": jax.ShapeDtypeStruct((chunk, rows, classes, count, dim), arrays["q"].dtype)}
    out_specs = [specs.own_vectors(same)]
    if softmax:
        written["dots"] = jax.ShapeDtypeStruct((chunk, classes, count, rows), jnp.float32)
        out_specs.append(specs.own_scalars(same))
    if keep_slopes:
        written["slopes"] = jax.ShapeDtypeStruct((count // heads, *biases.shape), biases.dtype)
        shape = (None, None, None, launch.padded, launch.padded)
        out_specs.append(pl.BlockSpec(shape, lambda i, h, c, b: (h, b, c, 0, 0)))
    results = pl.pallas_call(
        functools.partial(
            _queries_kernel, launch=launch, heads=heads, inputs=tuple(names), outputs=tuple(written)
        ),
        grid=(launch.tiles, count // heads, classes, chunk),
        in_specs=[*in_specs, specs.whole(arrays["length"]), specs.one(), specs.pairs(same)],
        out_specs=out_specs,
        out_shape=list(written.values()),
        compiler_params=pltriton.CompilerParams(num_warps=cut.warps, num_stages=cut.stages),
        interpret=launch.interpret,
        name=f"{launch.kind}_attention_{launch.region}_backward_queries",
    )(*(arrays[name] for name in names), first, biases)
    return dict(zip(written, results, strict=True))


def _queries_kernel(*refs, launch, heads, inputs, outputs):
    refs = dict(zip((*inputs, "first", "biases", *outputs), refs, strict=True))
    softmax = launch.kind == "softmax"
    index, class_ = pl.program_id(0), pl.program_id(2)
    row = refs["first"][0] + pl.program_id(3)
    q, gradient, log_sum, dots = [], [], [], []
    for head in range(heads):
        q.append(tile.load_rows(launch, refs["q"], index, head, row))
        gradient.append(tile.load_rows(launch, refs["out_gradient"], index, head, row))
        if softmax:
            out = tile.load_rows(launch, refs["out"], index, head, row).astype(jnp.float32)
            dots.append(jnp.sum(out * gradient[head].astype(jnp.float32), axis=1))
            log_sum.append(tile.load_sum(launch, refs["log_sum"], index, head, row))
            tile.store_sum(launch, refs["dots"], index, head, dots[head])

    def body(key_index: Any, carry: tuple) -> tuple:
        next_carry, slopes = [], []
        place = tile.pair(launch, index, key_index)
        bias = refs["biases"][place].astype(jnp.float32)
        for head in range(heads):
            k = tile.load_rows(launch, refs["k"], key_index, head, row)
            v = tile.load_rows(launch, refs["v"], key_index, head, row)
            coupled = dot(gradient[head], v.T)
            sums = (log_sum[head][:, None], dots[head][:, None]) if softmax else None
            slopes.append(_weights(launch, dot(q[head], k.T), bias, coupled, sums)[1])
            next_carry.append(carry[head] + dot(slopes[head].astype(k.dtype), k))
        if "slopes" in refs:
            refs["slopes"][place] = sum(slopes).astype(refs["slopes"].dtype)
        return tuple(next_carry)

    zero = jnp.zeros((launch.block, launch.width), jnp.float32)
    ranges = visits.key_blocks(launch, index, class_, refs["length"][row])
    for head, q_gradient in enumerate(visits.loop(ranges, body, (zero,) * heads)):
        tile.store_rows(launch, refs["gradient"], index, head, q_gradient * launch.scale)


def backward_keys(
    launch: Launch,
    cut: Cut,
    arrays: dict[str, jax.Array],
    biases: jax.Array,
    dots: jax.Array | None,
    first: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Runs the kernel for the keys; arguments as of `backward_queries`, and dots as it returns them.

    Returns:
      The gradients of k and of v, (rows, U, R, H, Dh).
    """
    size, rows, classes, count, dim = arrays["k"].shape
    heads = largest_divisor(count, cut.heads)
    specs, queries, softmax = Specs(launch, size, heads), launch.query_class, launch.kind == "softmax"
    names = ["q", "k", "v", "out_gradient", *(["log_sum"] if softmax else []), "length"]
    in_specs = [specs.vectors(side) for side in (queries, same, same, queries)]
    in_specs += [specs.scalars(queries)] if softmax else []
    in_specs += [specs.whole(arrays["length"]), specs.one(), specs.pairs(queries)]
    in_specs += [specs.own_scalars(queries)] if softmax else []
    like = jax.ShapeDtypeStruct((biases.shape[0], rows, classes, count, dim), arrays["k"].dtype)
    return pl.pallas_call(
        functools.partial(_keys_kernel, launch=launch, heads=heads, inputs=tuple(names)),
        grid=(launch.tiles, count // heads, classes, biases.shape[0]),
        in_specs=in_specs,
        out_specs=[specs.own_vectors(same)] * 2,
        out_shape=[like, like],
        compiler_params=pltriton.CompilerParams(num_warps=cut.warps, num_stages=cut.stages),
        interpret=launch.interpret,
        name=f"{launch.kind}_attention_{launch.region}_backward_keys",
    )(*(arrays[name] for name in names), first, biases, *([dots] if softmax else []))


def _keys_kernel(*refs, launch, heads, inputs):
    softmax = launch.kind == "softmax"
    names = (*inputs, "first", "biases", *(("dots",) if softmax else ()), "k_gradient", "v_gradient")
    refs = dict(zip(names, refs, strict=True))
    index, class_ = pl.program_id(0), pl.program_id(2)
    row = refs["first"][0] + pl.program_id(3)
    k = [tile.load_rows(launch, refs["k"], index, head, row) for head in range(heads)]
    v = [tile.load_rows(launch, refs["v"], index, head, row) for head in range(heads)]

    def body(query_index: Any, carry: tuple) -> tuple:
        gradients = []
        # Keys down, queries across: the products need no transpose.
        bias = tile.load_turned(launch, refs["biases"], query_index, index).astype(jnp.float32)
        for head in range(heads):
            k_gradient, v_gradient = carry[head]
            q = tile.load_rows(launch, refs["q"], query_index, head, row)
            gradient = tile.load_rows(launch, refs["out_gradient"], query_index, head, row)
            coupled = dot(v[head], gradient.T)
            sums = None
            if softmax:
                log_sum = tile.load_sum(launch, refs["log_sum"], query_index, head, row)
                sums = log_sum[None, :], tile.load_sum(launch, refs["dots"], query_index, head)[None, :]
            weight, slope = _weights(launch, dot(k[head], q.T), bias, coupled, sums)
            v_gradient += dot(weight.astype(gradient.dtype), gradient)
            k_gradient += dot(slope.astype(q.dtype), q)
            gradients.append((k_gradient, v_gradient))
        return tuple(gradients)

    zero = jnp.zeros((launch.block, launch.width), jnp.float32)
    ranges = visits.query_blocks(launch, index, class_, refs["length"][row])
    for head, (k_gradient, v_gradient) in enumerate(visits.loop(ranges, body, ((zero, zero),) * heads)):
        tile.store_rows(launch, refs["k_gradient"], index, head, k_gradient * launch.scale)
        tile.store_rows(launch, refs["v_gradient"], index, head, v_gradient)
