"""Rows of several candidates, taken apart for models whose history states depend on the candidate."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from suan_jax.batch import Batch
from suan_jax.layers.embedding import Rows


def one_candidate_per_row(rows: Rows, batch: Batch) -> tuple[Rows, Batch]:
    """Repeats each row's history for each of its M candidates, cut to the events the candidate sees.

    Right for any model and any packing, at M times the cost of the history. Times keep the row's reference
    time.

    Returns:
      Rows and a batch of B·M rows with one candidate each; row b·M + m is candidate m of row b.
    """
    size, candidates = batch.candidate_mask.shape

    def repeat(x: jax.Array) -> jax.Array:
        copies = jnp.broadcast_to(x[:, None], (size, candidates, *x.shape[1:]))
        return copies.reshape(size * candidates, *x.shape[1:])

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(size * candidates, 1, *x.shape[2:])

    seen = jnp.arange(batch.history_mask.shape[1]) < split(batch.visible)
    repeated, separate = ("history", "profile"), ("candidate", "context")
    groups = {
        **{group: jax.tree.map(repeat, batch.group(group)) for group in repeated},
        **{group: jax.tree.map(split, batch.group(group)) for group in separate},
    }
    arrays = {
        **{name: repeat(getattr(batch, name)) for name in ("history_age", "history_timed", "week_second")},
        **{name: split(getattr(batch, name)) for name in ("candidate_mask", "candidate_age", "visible")},
        **{name: split(getattr(batch, name)) for name in ("dense", "label")},
    }
    flat = Batch(**groups, **arrays, history_mask=repeat(batch.history_mask) & seen)
    return {
        **{group: jax.tree.map(repeat, rows[group]) for group in repeated},
        **{group: jax.tree.map(split, rows[group]) for group in separate},
    }, flat
