"""What is inside a call of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.layers import embedding
from suan_jax.layers.embedding import Rows
from suan_jax.models.model import Model, Variables


def gathered(model: Model, variables: Variables, batch: Batch) -> Rows:
    """The rows of the model's tables that it reads for `batch`."""
    return jax.jit(embedding.gather, static_argnums=0)(model.lookups, variables["tables"], batch)


def captured(
    keep: Callable[[nn.Module, str], bool],
    model: Model,
    variables: Variables,
    batch: Batch,
    rows: Rows | None = None,
) -> Any:
    """What those methods returned of which `keep(module, method)` holds, by path, in NumPy.

    Of a call on `batch`, and on `rows` where they are not the ones that the tables give.
    """

    def run(variables: Variables, rows: Rows, batch: Batch) -> Any:
        return model.apply_rows(
            variables, rows, batch, capture_intermediates=keep, mutable=["intermediates"]
        )[1]["intermediates"]

    rows = gathered(model, variables, batch) if rows is None else rows
    return jax.device_get(jax.jit(run)(variables, rows, batch))


def returned_by(method: str, model: Model, variables: Variables, batch: Batch) -> Any:
    """What the model's module returned from its method of that name."""
    return captured(lambda _, name: name == method, model, variables, batch)[method][0]


def tokens_and_states(
    model: Model, variables: Variables, batch: Batch, rows: Rows | None = None
) -> tuple[jax.Array, jax.Array]:
    """What a sequential model's submodule `tokens` and its method `states` return, each (B, T, D)."""
    inside = captured(
        lambda module, method: module.name == "tokens" or method == "states", model, variables, batch, rows
    )
    return inside["tokens"]["__call__"][0], inside["states"][0]
