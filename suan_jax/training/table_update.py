"""Embedding tables: read the rows a batch touches, and update those rows and no others.

A dense optimizer would write every row at every step. Here the ids of a batch are made distinct, their rows
are gathered, the loss is differentiated with respect to them, and row-wise Adagrad (one accumulator a row)
writes them back in place:

    accumulator[id] += mean(g²)
    row[id]         -= learning_rate * g / sqrt(accumulator[id])

A table may be bfloat16. What is written to it is then rounded up or down at random, each in proportion to
how near it is, as most updates are smaller than half a step of bfloat16 and would be lost to rounding to the
nearest.

Adagrad: Duchi et al., JMLR 2011; one accumulator per row: Naumov et al., arXiv 1906.00091; rounding at
random: Gupta et al., arXiv 1502.02551. A row whose gradient is zero stays as it is, so a row's accumulator
tells whether it was ever trained.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from suan_jax.layers.embedding import take_rows
from suan_jax.schema import OOV


class Distinct(NamedTuple):
    """The distinct ids of a batch in one table.

    Attributes:
      ids: (u,) int32 ascending, each once; past the last one, the table's number of rows (out of range).
      position: (n,) int32, where each of the n ids of the batch stands in `ids`.
    """

    ids: jax.Array
    position: jax.Array


def distinct(ids: jax.Array, num_rows: int) -> Distinct:
    """Makes `ids` (n,) of a table of `num_rows` rows distinct; u = min(n, num_rows).

    A table no larger than the batch's ids is taken whole: that needs no sort and gives the same update.
    """
    if num_rows <= ids.size:
        return Distinct(jnp.arange(num_rows, dtype=jnp.int32), ids)
    return jax.lax.platform_dependent(
        ids, cpu=lambda ids: _searched(ids, num_rows), default=lambda ids: _sorted(ids, num_rows)
    )


def _unique(ordered: jax.Array, num_rows: int) -> tuple[jax.Array, jax.Array]:
    """The distinct ones of ascending ids (n,), as in `Distinct`, and where each of the n stands in them."""
    first = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    rank = (jnp.cumsum(first) - 1).astype(jnp.int32)
    return jnp.full(ordered.size, num_rows, jnp.int32).at[rank].set(ordered), rank


def _searched(ids: jax.Array, num_rows: int) -> Distinct:
    """Ids sorted alone, then searched: a CPU sorts them with their positions five times as slowly."""
    unique, _ = _unique(jnp.sort(ids), num_rows)
    return Distinct(unique, jnp.searchsorted(unique, ids).astype(jnp.int32))


def _sorted(ids: jax.Array, num_rows: int) -> Distinct:
    """Ids sorted with their positions: two to four times as fast as a search on a GPU."""
    ordered, origin = jax.lax.sort((ids, jnp.arange(ids.size, dtype=jnp.int32)), num_keys=1)
    unique, rank = _unique(ordered, num_rows)
    return Distinct(unique, jnp.zeros_like(rank).at[origin].set(rank, unique_indices=True))


def read_rows(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Rows (u, width) float32 of `table` (rows, width) at distinct `ids` (u,); zero out of range."""
    return take_rows(table, ids, fill_value=0, unique_indices=True)


def adagrad_rows(
    table: jax.Array,
    accumulator: jax.Array,
    ids: jax.Array,
    gradient: jax.Array,
    learning_rate: jax.Array | float,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """One row-wise Adagrad update.

    Args:
      table: (rows, width) float32 or bfloat16.
      accumulator: (rows,) float32, positive.
      ids: (u,) int32 distinct ids; those out of range are skipped.
      gradient: (u, width), the loss's gradient with respect to the rows at `ids`.
      learning_rate: scalar.
      key: random key for the rounding to bfloat16.

    Returns:
      The new table and accumulator; in place when the arguments are donated.
    """
    squares = jnp.mean(jnp.square(gradient), axis=-1)
    total = accumulator.at[ids].get(mode="fill", fill_value=1.0, unique_indices=True) + squares
    step = learning_rate * gradient * jax.lax.rsqrt(total)[:, None]
    if table.dtype == jnp.float32:
        table = table.at[ids].add(-step, mode="drop", unique_indices=True)
    else:
        rows = _rounded_at_random(read_rows(table, ids) - step, key)
        table = jax.lax.platform_dependent(table, ids, rows, cpu=_set_as_integers, default=_set)
    # Set, not added to: as it follows from what was read, XLA sees that it may write in place. An addition
    # made it copy the whole accumulator first.
    accumulator = accumulator.at[ids].set(total, mode="drop", unique_indices=True)
    return table, accumulator


def _rounded_at_random(x: jax.Array, key: jax.Array) -> jax.Array:
    """`x`, float32, as bfloat16: of the two neighbours one, the nearer the likelier."""
    bits = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    bits = jnp.where(jnp.isnan(x), 0, bits)  # some NaNs are the largest integers
    moved = jax.lax.bitcast_convert_type(x, jnp.uint32) + bits
    return jax.lax.bitcast_convert_type((moved >> 16).astype(jnp.uint16), jnp.bfloat16)


def _set(table: jax.Array, ids: jax.Array, rows: jax.Array) -> jax.Array:
    return table.at[ids].set(rows, mode="drop", unique_indices=True)


def _set_as_integers(table: jax.Array, ids: jax.Array, rows: jax.Array) -> jax.Array:
    """`_set` of bfloat16 on a CPU, see `take_rows`; on a GPU this one would copy the table."""
    table, rows = (jax.lax.bitcast_convert_type(x, jnp.uint16) for x in (table, rows))
    return jax.lax.bitcast_convert_type(_set(table, ids, rows), jnp.bfloat16)


def inference_table(table: jax.Array, accumulator: jax.Array, initial: float) -> jax.Array:
    """The table as evaluation reads it: rows never trained hold the out-of-vocabulary row instead."""
    return jnp.where((accumulator > initial)[:, None], table, table[OOV]).at[0].set(0.0)
