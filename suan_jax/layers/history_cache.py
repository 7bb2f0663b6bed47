"""What a model keeps of a history, so that candidates are scored on it without passing it again.

A model that can keeps, in the variable collection `COLLECTION`, what its candidates read of the events: keys
and values of each attention, sums that states are pooled from. It is written by the plain pass, over the
history and a blank candidate, where the collection is mutable; and read by the same pass over the candidates
alone, where the collection is given. Only candidates of one request may read it, and only what no candidate
changes may be kept.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from suan_jax.batch import Batch, without_ids

COLLECTION = "cache"


def writes(module: nn.Module) -> bool:
    """Whether this pass is to keep something of the history."""
    return module.is_mutable_collection(COLLECTION) and not module.is_initializing()


def reads(module: nn.Module) -> bool:
    """Whether this pass is over candidates alone, and the history was kept."""
    return bool(module.variables.get(COLLECTION)) and not module.is_mutable_collection(COLLECTION)


def keep(module: nn.Module, **values: jax.Array) -> None:
    """Writes values under their names if this pass is to."""
    if writes(module):
        for name, value in values.items():
            module.variable(COLLECTION, name, lambda value=value: value)


def kept(module: nn.Module, name: str) -> jax.Array:
    """What `keep` wrote."""
    return module.get_variable(COLLECTION, name)


def without_events(batch: Batch) -> Batch:
    """The batch with no history slot; what the candidates see of it stays in `visible`."""
    return without_ids(batch).replace(
        history_mask=batch.history_mask[:, :0],
        history_age=batch.history_age[:, :0],
        history_timed=batch.history_timed[:, :0],
    )


def first_candidate(batch: Batch) -> Batch:
    """The batch with the first candidate alone, which stands for all of one request; ids are left out."""

    def take(x: jax.Array) -> jax.Array:
        return x[:, :1]

    names = ("candidate_mask", "candidate_age", "visible", "dense", "label")
    arrays = {name: take(getattr(batch, name)) for name in names}
    return batch.replace(candidate={}, context={}, **arrays)
