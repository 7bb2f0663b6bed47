"""Which tiles of pairs a kernel visits: two ranges of blocks for a block of queries, or of keys."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from suan_jax.kernels.attention_tile import Launch


def loop(ranges: tuple[tuple[Any, Any], tuple[Any, Any]], body: Any, carry: Any) -> Any:
    """`body(index, carry)` for the indices of two ranges, in one loop: the body is compiled once."""
    (start, stop), (more, end) = ranges
    first = stop - start

    def step(t: jax.Array, carry: Any) -> Any:
        return body(jnp.where(t < first, start + t, more + t - first), carry)

    return lax.fori_loop(0, first + end - more, step, carry)


def within(ranges: tuple[tuple[Any, Any], tuple[Any, Any]], index: Any) -> Any:
    """Whether an index is in one of two ranges."""
    (start, stop), (more, end) = ranges
    return ((index >= start) & (index < stop)) | ((index >= more) & (index < end))


def key_blocks(launch: Launch, index: Any, class_: Any, length: Any) -> tuple:
    """The two ranges of blocks of keys that a block of queries of a class sees.

    `length` is the number of the row's history slots in use: blocks beyond it are not visited.
    """
    block = launch.block
    start = index * block
    if launch.region == "far":
        first, last = (row * launch.classes + class_ for row in (start, start + block - 1))
        reach = jnp.minimum(last - launch.window + 1, length) - launch.key_class(class_)
        rows = lax.div(jnp.maximum(reach, 0) + launch.classes - 1, launch.classes)
        stop = jnp.where(first < length, lax.div(rows + block - 1, block), 0)
        return (0, stop), (0, 0)
    end = jnp.minimum(start + block, launch.tokens)
    candidates = end > launch.history
    used = lax.div(length + block - 1, block)
    stop = jnp.where(candidates, used, jnp.where(start < length, jnp.minimum(used, index + 1), 0))
    low = 0
    if launch.region == "near":
        local = lax.div(jnp.maximum(start - launch.window + 1, 0), block)
        low = jnp.where(candidates, 0, jnp.minimum(local, stop))
    own = jnp.maximum(stop, index)
    return (low, stop), (own, jnp.where(candidates, jnp.maximum(own, index + 1), own))


def query_blocks(launch: Launch, index: Any, class_: Any, length: Any) -> tuple:
    """The two ranges of blocks of queries that see a block of keys of a class."""
    block = launch.block
    start = index * block
    if launch.region == "far":
        first = start * launch.classes + class_
        queries = launch.query_class(class_)
        low = lax.div(jnp.maximum(first + launch.window - queries, 0), launch.classes * block)
        rows = lax.div(jnp.maximum(length - queries, 0) + launch.classes - 1, launch.classes)
        stop = jnp.where(first < length, lax.div(rows + block - 1, block), 0)
        return (jnp.minimum(low, stop), stop), (0, 0)
    used = start < length
    stop = lax.div(length + block - 1, block)
    if launch.region == "near":
        stop = jnp.minimum(stop, lax.div(start + block + launch.window - 2 + block, block))
    stop = jnp.where(used, jnp.maximum(stop, index), index)
    more = jnp.maximum(stop, launch.history // block)
    candidates = used | (start + block > launch.history)
    return (index, stop), (more, jnp.where(candidates, pl.cdiv(launch.tokens, block), more))
