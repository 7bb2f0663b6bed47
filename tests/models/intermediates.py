"""What a method of a model returned inside a call."""

from __future__ import annotations

from typing import Any

import jax

from suan_jax.batch import Batch
from suan_jax.models.model import Model, Variables


def returned_by(method: str, model: Model, variables: Variables, batch: Batch) -> Any:
    """What the model's module returned from its method of that name when `batch` was scored, in NumPy."""

    def run(variables: Variables, batch: Batch) -> Any:
        captured = model.apply(
            variables,
            batch,
            capture_intermediates=lambda _, name: name == method,
            mutable=["intermediates"],
        )[1]["intermediates"]
        return captured[method][0]

    return jax.device_get(jax.jit(run)(variables, batch))
