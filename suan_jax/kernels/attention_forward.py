"""The forward kernel: one program for a block of queries and a few heads, over blocks of their keys."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

from suan_jax.kernels import attention_tile as tile
from suan_jax.kernels import attention_visits as visits
from suan_jax.kernels.attention_tile import MASKED, Cut, Launch, Specs, largest_divisor, same

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


def forward(
    launch: Launch, cut: Cut, arrays: dict[str, jax.Array], biases: jax.Array, first: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Runs the kernel for some rows of the batch.

    Args:
      launch: what it computes.
      cut: how it is cut.
      arrays: q, k and v, (B, U, R, H, Dh); length, (B,) int32.
      biases: (rows, R, P, P), as `attention_bias.fill` returns them for those rows; for softmax times
        log2(e).
      first: (1,) int32, the first of the rows.

    Returns:
      The outputs, (rows, U, R, H, Dh), and log2 of the sum of the weights' exponentials, (rows, R, H, U)
      float32, `MASKED` where a query sees no key; for silu the latter is not written.
    """
    size, rows, classes, count, dim = arrays["q"].shape
    heads = largest_divisor(count, cut.heads)
    specs, keys = Specs(launch, size, heads), launch.key_class
    return pl.pallas_call(
        functools.partial(_kernel, launch=launch, heads=heads),
        grid=(launch.tiles, count // heads, classes, biases.shape[0]),
        in_specs=[
            specs.one(),
            *(specs.vectors(side) for side in (same, keys, keys)),
            specs.whole(arrays["length"]),
            specs.pairs(same),
        ],
        out_specs=[specs.own_vectors(same), specs.own_scalars(same)],
        out_shape=[
            jax.ShapeDtypeStruct((biases.shape[0], rows, classes, count, dim), arrays["q"].dtype),
            jax.ShapeDtypeStruct((biases.shape[0], classes, count, rows), jnp.float32),
        ],
        compiler_params=pltriton.CompilerParams(num_warps=cut.warps, num_stages=cut.stages),
        interpret=launch.interpret,
        name=f"{launch.kind}_attention_{launch.region}",
    )(first, *(arrays[name] for name in ("q", "k", "v", "length")), biases)


def _kernel(first_ref, q_ref, k_ref, v_ref, length_ref, bias_ref, out_ref, sum_ref, *, launch, heads):
    index, class_, softmax = pl.program_id(0), pl.program_id(2), launch.kind == "softmax"
    row = first_ref[0] + pl.program_id(3)
    q = [tile.load_rows(launch, q_ref, index, head, row) for head in range(heads)]

    def body(key_index: Any, carry: tuple) -> tuple:
        bias = bias_ref[tile.pair(launch, index, key_index)].astype(jnp.float32)
        update = _softmax if softmax else _silu
        return tuple(
            update(
                launch,
                carry[head],
                dot(q[head], tile.load_rows(launch, k_ref, key_index, head, row).T),
                bias,
                tile.load_rows(launch, v_ref, key_index, head, row),
            )
            for head in range(heads)
        )

    out = jnp.zeros((launch.block, launch.width), jnp.float32)
    blank = (out,)
    if softmax:
        top = jnp.full((launch.block,), MASKED, jnp.float32)
        blank = (out, top, jnp.zeros((launch.block,), jnp.float32))
    ranges = visits.key_blocks(launch, index, class_, length_ref[row])
    for head, (out, *rest) in enumerate(visits.loop(ranges, body, (blank,) * heads)):
        if softmax:
            top, total = rest
            some = top > MASKED / 2
            total = jnp.where(some, total, 1.0)
            out = jnp.where(some[:, None], out / total[:, None], 0.0)
            log_sum = jnp.where(some, top + jnp.log2(total), MASKED)
            tile.store_sum(launch, sum_ref, index, head, log_sum)
        tile.store_rows(launch, out_ref, index, head, out)


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
