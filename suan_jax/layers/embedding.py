"""From ids to rows: which embedding tables a model reads, and how a batch's ids index them.

Tables live outside the Flax parameters. A step collects the ids of a table over all features that share
it, gathers each distinct row once, and differentiates with respect to those rows; no gradient of a table's
own size ever exists.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from suan_jax.batch import Batch
from suan_jax.schema import GROUPS, OOV, PAD, Schema

ROW_MULTIPLE = 256
"""Tables are padded to a multiple of this many rows, so that their shape does not depend on the mesh."""

Rows = dict[str, dict[str, jax.Array]]
"""Group, then name of the lookup, to embeddings: (B, L, d), (B, M, d) or (B, d) by group, float32."""


@dataclasses.dataclass(frozen=True)
class Lookup:
    """One feature read from one table.

    Attributes:
      name: key of the result in `Rows[group]`.
      group: one of `schema.GROUPS`.
      feature: name of the feature whose ids are read.
      table: name of the embedding table.
      vocabulary: name of the schema's table whose ids index it.
      rows: number of ids of the table.
      width: width of the table.
      scale: standard deviation of the table's initial rows; None takes the config's.
    """

    name: str
    group: str
    feature: str
    table: str
    vocabulary: str
    rows: int
    width: int
    scale: float | None = None


def feature_lookups(schema: Schema, width: int) -> tuple[Lookup, ...]:
    """One lookup per feature of the schema, each of the same width, in its vocabulary's own table."""
    return tuple(
        Lookup(
            name=feature.name,
            group=group,
            feature=feature.name,
            table=feature.table,
            vocabulary=feature.table,
            rows=schema.tables[feature.table],
            width=width,
        )
        for group in GROUPS
        for feature in schema.group(group)
    )


def init_tables(
    key: jax.Array, lookups: Sequence[Lookup], scale: float, dtype: jnp.dtype = jnp.float32
) -> dict[str, jax.Array]:
    """Tables of N(0, scale²) rows of `dtype`; the pad row and the out-of-vocabulary row start at zero.

    A lookup's own scale comes before `scale`. A table has its number of ids, rounded up to `ROW_MULTIPLE`, as
    rows.
    """
    sizes = {
        lookup.table: (-(-lookup.rows // ROW_MULTIPLE) * ROW_MULTIPLE, lookup.width) for lookup in lookups
    }
    scales = {lookup.table: scale if lookup.scale is None else lookup.scale for lookup in lookups}
    tables = {}
    for index, (name, shape) in enumerate(sorted(sizes.items())):
        rows = scales[name] * jax.random.normal(jax.random.fold_in(key, index), shape, jnp.float32)
        tables[name] = rows.at[: OOV + 1].set(0.0).astype(dtype)
    return tables


def batch_ids(lookups: Sequence[Lookup], batch: Batch) -> dict[str, jax.Array]:
    """All ids that a batch reads from each table: table name to (n,) int32, in the order of `lookups`."""
    parts: dict[str, list[jax.Array]] = {}
    for lookup in lookups:
        ids = batch.group(lookup.group)[lookup.feature]
        parts.setdefault(lookup.table, []).append(jnp.ravel(ids))
    return {table: jnp.concatenate(arrays) for table, arrays in parts.items()}


def batch_rows(lookups: Sequence[Lookup], batch: Batch, flat: Mapping[str, jax.Array]) -> Rows:
    """Arranges the rows of `batch_ids` by feature.

    Args:
      lookups: as given to `batch_ids`.
      batch: as given to `batch_ids`.
      flat: table name to (n, width), the row of each id.

    Returns:
      `Rows`. A multi-valued feature is the mean of its values that are not `PAD`, zero if there are none.
    """
    single = {"history": 2, "candidate": 2, "profile": 1, "context": 2}  # axes of a single-valued feature
    offsets = dict.fromkeys(flat, 0)
    rows: Rows = {group: {} for group in GROUPS}
    for lookup in lookups:
        ids = batch.group(lookup.group)[lookup.feature]
        start, size = offsets[lookup.table], math.prod(ids.shape)
        offsets[lookup.table] = start + size
        taken = flat[lookup.table][start : start + size].reshape(*ids.shape, lookup.width)
        valid = (ids != PAD)[..., None]
        taken = jnp.where(valid, taken, 0.0)
        if ids.ndim > single[lookup.group]:
            taken = taken.sum(-2) / jnp.maximum(valid.sum(-2), 1)
        rows[lookup.group][lookup.name] = taken
    return rows


def gather(lookups: Sequence[Lookup], tables: Mapping[str, jax.Array], batch: Batch) -> Rows:
    """Reads a batch's rows straight from the tables."""
    ids = batch_ids(lookups, batch)
    return batch_rows(lookups, batch, {name: take_rows(tables[name], ids[name]) for name in ids})


def take_rows(table: jax.Array, ids: jax.Array, **how: Any) -> jax.Array:
    """Rows (n, width) float32 of a table (rows, width), float32 or bfloat16, at ids (n,).

    `how` is as of `table.at[ids].get`; ids out of range read as NaN unless it says otherwise. A table in
    bfloat16 gets no gradient through it: steps differentiate with respect to rows.
    """
    table, how = jnp.asarray(table), {"mode": "fill", **how}
    if table.dtype == jnp.float32:
        return table.at[ids].get(**how)

    def integers(table: jax.Array, ids: jax.Array) -> jax.Array:
        """Of bfloat16 XLA for CPUs would make the whole table float32 first."""
        bits = jax.lax.bitcast_convert_type(table, jnp.uint16).at[ids].get(**how)
        return jax.lax.bitcast_convert_type(bits, table.dtype)

    rows = jax.lax.platform_dependent(
        table, ids, cpu=integers, default=lambda table, ids: table.at[ids].get(**how)
    )
    return rows.astype(jnp.float32)
