"""Random logs and batches for tests, from NumPy seeds, and the changes to them that tests compare."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from suan_jax.batch import Batch
from suan_jax.schema import PAD, Feature, Schema

WEEK = 7 * 24 * 3600


def random_schema(item_rows: int = 50) -> Schema:
    """Features of every kind: shared, of one side alone, multi-valued, profile, context and dense."""
    return Schema(
        tables={"item": item_rows, "category": 12, "tag": 9, "action": 6, "shop": 15, "city": 8, "tab": 5},
        history=(
            Feature("item", "item"),
            Feature("category", "category"),
            Feature("tags", "tag", values=3),
            Feature("action", "action"),
        ),
        candidate=(
            Feature("item", "item"),
            Feature("category", "category"),
            Feature("tags", "tag", values=3),
            Feature("shop", "shop"),
        ),
        profile=(Feature("city", "city"), Feature("interests", "category", values=2)),
        context=(Feature("tab", "tab"),),
        dense=("price", "distance"),
        category="category",
        action="action",
    )


def random_ids(rng: np.random.Generator, schema: Schema, features, shape, low: int = 1) -> dict:
    """Feature name to ids of `shape` (with a last axis of values where a feature has several)."""
    return {
        feature.name: rng.integers(
            low, schema.tables[feature.table], (*shape, feature.values) if feature.values > 1 else shape
        ).astype(np.int32)
        for feature in features
    }


def random_batch(
    seed: int,
    schema: Schema,
    rows: int = 5,
    length: int = 7,
    candidates: int = 1,
    lengths: np.ndarray | None = None,
    across_time: bool = False,
    unknown: float = 0.2,
) -> Batch:
    """A batch of random histories.

    Args:
      seed: NumPy seed.
      schema: the log's schema.
      rows: B.
      length: L, history slots.
      candidates: M.
      lengths: (B,) valid events of each row; random if None.
      across_time: candidates of one user at different times, each with its own `visible`; else the
        candidates of one request.
      unknown: share of events without a time, and of profile features that are missing.
    """
    rng = np.random.default_rng(seed)
    shape = (rows, length)
    lengths = rng.integers(0, length + 1, rows) if lengths is None else np.asarray(lengths)
    mask = np.arange(length) < lengths[:, None]
    # Ages step by seconds to weeks; even gaps keep odd ages free for candidates.
    gaps = 2 * np.exp(rng.uniform(0, 14, (rows, length + 1))).astype(np.int64)
    ages = np.cumsum(gaps[:, ::-1], axis=1)[:, ::-1]
    history_age = np.where(mask, ages[:, :length], 0)
    visible = np.repeat(lengths[:, None], candidates, axis=1)
    candidate_age = np.zeros((rows, candidates), np.int64)
    if across_time:
        visible = np.sort(rng.integers(0, lengths[:, None] + 1, (rows, candidates)), axis=1)
        newest = np.concatenate([history_age, np.zeros((rows, 1), np.int64)], axis=1)
        # One second before the first event that the candidate must not see.
        candidate_age = np.where(
            visible < lengths[:, None], np.take_along_axis(newest, visible, axis=1) + 1, 0
        )
    history = random_ids(rng, schema, schema.history, shape)
    candidate = random_ids(rng, schema, schema.candidate, (rows, candidates))
    profile = random_ids(rng, schema, schema.profile, (rows,))
    missing = rng.random((len(profile), rows)) < unknown
    for name, gone in zip(profile, missing, strict=True):
        profile[name] = np.where(_like(gone, profile[name]), PAD, profile[name])
    batch = Batch(
        history={name: np.where(_like(mask, ids), ids, PAD) for name, ids in history.items()},
        history_mask=mask,
        history_age=history_age.astype(np.int32),
        history_timed=mask & (rng.random(shape) >= unknown),
        candidate=candidate,
        candidate_mask=np.ones((rows, candidates), bool),
        candidate_age=candidate_age.astype(np.int32),
        visible=visible.astype(np.int32),
        profile=profile,
        context=random_ids(rng, schema, schema.context, (rows, candidates)),
        dense=rng.normal(size=(rows, candidates, len(schema.dense))).astype(np.float32),
        week_second=rng.integers(0, WEEK, rows).astype(np.int32),
        label=(rng.random((rows, candidates)) < 0.3).astype(np.float32),
    )
    return to_jax(batch)


def mixed_batch(seed: int, schema: Schema, **changes) -> Batch:
    """Full, short and empty histories, candidates that see different parts of them."""
    settings = {"lengths": [7, 7, 5, 2, 0], "candidates": 3, "across_time": True, **changes}
    return random_batch(seed, schema, **settings)


def to_jax(batch: Batch) -> Batch:
    """The batch with JAX arrays, features in their own order."""
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return Batch(
        **{
            name: {key: jnp.asarray(ids) for key, ids in value.items()}
            if isinstance(value, dict)
            else jnp.asarray(value)
            for name, value in fields.items()
        }
    )


def garble_pads(batch: Batch, schema: Schema, seed: int = 0) -> Batch:
    """Random ids, ages and flags in the history slots that are pads."""
    batch, rng = _to_numpy(batch), np.random.default_rng(seed)
    mask = batch.history_mask
    noise = random_ids(rng, schema, schema.history, mask.shape)
    history = {name: np.where(_like(mask, ids), ids, noise[name]) for name, ids in batch.history.items()}
    age = np.where(mask, batch.history_age, rng.integers(0, 2**31 - 1, mask.shape).astype(np.int32))
    timed = np.where(mask, batch.history_timed, rng.random(mask.shape) < 0.5)
    return to_jax(batch.replace(history=history, history_age=age, history_timed=timed))


def pad_history(batch: Batch, length: int) -> Batch:
    """The same batch with `length` history slots, the new ones pads."""
    batch = _to_numpy(batch)
    more = length - batch.history_mask.shape[1]

    def pad(x):
        return np.pad(x, [(0, 0), (0, more)] + [(0, 0)] * (x.ndim - 2))

    padded = batch.replace(
        history={name: pad(ids) for name, ids in batch.history.items()},
        history_mask=pad(batch.history_mask),
        history_age=pad(batch.history_age),
        history_timed=pad(batch.history_timed),
    )
    return to_jax(padded)


def one_candidate(batch: Batch, index: int) -> Batch:
    """The batch with the candidate at `index` alone."""
    batch = _to_numpy(batch)

    def take(x):
        return x[:, index : index + 1]

    alone = batch.replace(
        candidate={name: take(ids) for name, ids in batch.candidate.items()},
        context={name: take(ids) for name, ids in batch.context.items()},
        candidate_mask=take(batch.candidate_mask),
        candidate_age=take(batch.candidate_age),
        visible=take(batch.visible),
        dense=take(batch.dense),
        label=take(batch.label),
    )
    return to_jax(alone)


def single_example(batch: Batch, index: int) -> Batch:
    """The plain examples of the candidates at `index`: their own slice of history, at their own time."""
    single = _to_numpy(one_candidate(batch, index))
    age = single.candidate_age
    mask = single.history_mask & (np.arange(single.history_mask.shape[1]) < single.visible)
    example = single.replace(
        history={name: np.where(_like(mask, ids), ids, PAD) for name, ids in single.history.items()},
        history_mask=mask,
        history_age=np.where(mask, single.history_age - age, 0),
        history_timed=single.history_timed & mask,
        candidate_age=np.zeros_like(age),
        week_second=np.mod(single.week_second - age[:, 0], WEEK),
    )
    return to_jax(example)


def rows_of(batch: Batch, keep) -> Batch:
    """The rows of a batch that the index `keep` selects."""
    return to_jax(jax.tree.map(lambda x: x[keep], _to_numpy(batch)))


def _to_numpy(batch: Batch) -> Batch:
    """In NumPy nothing is compiled for a change of a batch."""
    return jax.tree.map(np.asarray, batch)


def _like(mask, ids):
    """The mask with the trailing axes of `ids` added."""
    return mask.reshape(mask.shape + (1,) * (ids.ndim - mask.ndim))
