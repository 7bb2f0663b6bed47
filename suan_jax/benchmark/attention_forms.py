"""The forms of self-attention that are compared, and inputs for them: full histories, then one candidate."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from suan_jax import kernels
from suan_jax.layers import time_buckets
from suan_jax.layers.attention import attention
from suan_jax.layers.bias import lookup
from suan_jax.layers.sparse_pattern import visible_pairs

PLAIN, CUDNN = "XLA, plain", "cuDNN, causal, no bias"
SOFTMAX, SILU, LIGHT = "kernel, softmax", "kernel, silu", "kernel, local and dilated"
_PRODUCTS = 2 + 5  # of a forward and a backward pass
_EDGES = tuple(int(edge) for edge in time_buckets.DEVICE_EDGES)
_YOUNGEST, _OLDEST = 60.0, 1e7  # ages of events, seconds

Form = Callable[..., jax.Array]
"""Of q, k, v, (B, T, H, Dh) each; w_pos, w_time; and `kernels.Tokens`: (B, T, H, Dh)."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of one attention.

    Attributes:
      batch_size: B.
      tokens: T, of which the last is the candidate.
      heads: H.
      head_dim: Dh.
      window: k of the sparse form.
      dilation: r of it.
    """

    batch_size: int
    tokens: int
    heads: int = 4
    head_dim: int = 64
    window: int = 64
    dilation: int = 8


def pairs(shape: Shape, name: str) -> int:
    """Pairs of tokens of one example of which one sees the other."""
    history = shape.tokens - 1
    sparse = (shape.window, shape.dilation) if name == LIGHT else (shape.tokens, 1)
    return int(visible_pairs(np.array([history]), *sparse)[0])


def flops(shape: Shape, name: str) -> float:
    """Useful floating-point operations of a forward and a backward pass, 2 per multiply-add."""
    return 2.0 * _PRODUCTS * shape.batch_size * pairs(shape, name) * shape.heads * shape.head_dim


def form(name: str, shape: Shape, interpret: bool = False, exact: bool = False) -> Form:
    """One of the forms.

    Args:
      name: which.
      shape: of its inputs.
      interpret: whether a kernel runs without a GPU.
      exact: whether it is the plain reference of a kernel instead.
    """
    if name == PLAIN:
        return _plain
    if name == CUDNN:
        return _cudnn
    history = shape.tokens - 1
    options: dict[str, Any] = {"kind": "softmax", "history": history, "scale": shape.head_dim**-0.5}
    if name == SILU:
        options |= {"kind": "silu", "scale": 1.0, "divisor": shape.tokens}
    elif name == LIGHT:
        options |= {"window": shape.window, "dilation": shape.dilation}
    if not exact:
        options["interpret"] = interpret
    attend = kernels.plain_attention if exact else kernels.fused_attention
    run = functools.partial(attend, edges=_EDGES, **options)
    return lambda q, k, v, position, time, tokens: run(q, k, v, tokens, position, time)


def inputs(shape: Shape, random: np.random.Generator, candidate_sees: int) -> list[Any]:
    """q, k, v and the weights of a loss, bfloat16; the two tables; and full histories as `kernels.Tokens`."""
    size, history = _vector_shape(shape), shape.tokens - 1
    vectors = [jnp.asarray(random.standard_normal(size, np.float32), jnp.bfloat16) for _ in range(4)]
    tables = [jnp.asarray(random.normal(size=n), jnp.float32) for n in _table_sizes(shape)]
    age = np.exp(random.uniform(np.log(_YOUNGEST), np.log(_OLDEST), (shape.batch_size, history)))
    age = np.append(-np.sort(-age, axis=1), np.zeros((shape.batch_size, 1)), axis=1)
    seen = np.append(np.arange(1, history + 1), candidate_sees)
    integers = (np.broadcast_to(seen, age.shape), age, age)
    return [*vectors, *tables, kernels.Tokens(*(jnp.asarray(x, jnp.int32) for x in integers))]


def abstract_inputs(shape: Shape) -> list[Any]:
    """Shapes and dtypes of `inputs`."""
    vector = jax.ShapeDtypeStruct(_vector_shape(shape), jnp.bfloat16)
    tables = [jax.ShapeDtypeStruct((n,), jnp.float32) for n in _table_sizes(shape)]
    integers = jax.ShapeDtypeStruct((shape.batch_size, shape.tokens), jnp.int32)
    return [*[vector] * 4, *tables, kernels.Tokens(*[integers] * 3)]


def _vector_shape(shape: Shape) -> tuple[int, int, int, int]:
    return shape.batch_size, shape.tokens, shape.heads, shape.head_dim


def _table_sizes(shape: Shape) -> tuple[int, int]:
    return 2 * shape.tokens - 1, time_buckets.TABLE_ROWS


def with_gradients(run: Form) -> Callable[..., list[jax.Array]]:
    """Of q, k, v, weights of a loss, tables and tokens: the output of a form, and its gradients in q, k, v
    and both tables, zero for tables that it does not read."""

    def both(q, k, v, weight, position, time, tokens):
        out, pull = jax.vjp(lambda *arrays: run(*arrays, tokens), q, k, v, position, time)
        return [out, *pull(weight.astype(out.dtype))]

    return both


def _cudnn(q, k, v, position, time, tokens):
    return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")


def _plain(q, k, v, position, time, tokens):
    slot = jnp.arange(q.shape[1])
    index = jnp.broadcast_to(slot - slot[:, None] + q.shape[1] - 1, (q.shape[0], slot.size, slot.size))
    age = tokens.query_time_BxT, tokens.query_time_BxT >= 0
    bias = lookup(position, index) + lookup(time, time_buckets.pair_buckets(*age, *age))
    return attention(q, k, v, bias.astype(q.dtype), jnp.broadcast_to(slot <= slot[:, None], index.shape))
