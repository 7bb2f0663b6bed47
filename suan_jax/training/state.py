"""Everything a training run carries from step to step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from suan_jax.batch import Batch
from suan_jax.models.model import Model, Variables
from suan_jax.training.table_update import inference_table


@struct.dataclass
class TrainState:
    """A run's state; a pytree, saved whole in each checkpoint.

    Attributes:
      step: () int32, steps taken.
      params: the model's dense parameters.
      batch_stats: running statistics.
      constants: what the model drew at initialisation and never trains.
      opt_state: the dense optimizer's state.
      tables: table name to (rows, width), float32 or bfloat16.
      accumulators: table name to (rows,) float32, row-wise Adagrad's.
      key: the run's random key.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    constants: Any
    opt_state: Any
    tables: dict[str, jax.Array]
    accumulators: dict[str, jax.Array]
    key: jax.Array

    def dense_variables(self) -> Variables:
        """The model's variables without its tables, for `Model.apply_rows`."""
        return {"params": self.params, "batch_stats": self.batch_stats, "constants": self.constants}

    def items(self) -> dict[str, TrainState]:
        """What a checkpoint saves it as: item name to a state that can be restored without the others."""
        return {"state": self}

    @classmethod
    def of_items(cls, items: Mapping[str, TrainState]) -> TrainState:
        """The inverse of `items`."""
        return items["state"]


@struct.dataclass
class AccompaniedState(TrainState):
    """A run's state together with that of another model, which trains along.

    Attributes:
      companion: the other's state.
    """

    companion: TrainState

    def items(self) -> dict[str, TrainState]:
        """See `TrainState`."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(TrainState)}
        return {"state": TrainState(**own), "companion": self.companion}

    @classmethod
    def of_items(cls, items: Mapping[str, TrainState]) -> AccompaniedState:
        """See `TrainState`."""
        return cls(**vars(items["state"]), companion=items["companion"])


@jax.jit
def is_finite(state: TrainState) -> jax.Array:
    """Whether no number of the state is NaN or infinite, () bool."""
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def init_state(
    key: jax.Array,
    model: Model,
    optimizer: optax.GradientTransformation,
    initial_accumulator: float,
    batch: Batch,
) -> TrainState:
    """A run's first state. Only shapes of `batch` matter."""
    init_key, run_key = jax.random.split(key)
    variables = model.init(init_key, batch)
    tables = variables["tables"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        constants=variables["constants"],
        opt_state=optimizer.init(variables["params"]),
        tables=tables,
        accumulators={
            name: jnp.full(table.shape[:1], initial_accumulator, jnp.float32)
            for name, table in tables.items()
        },
        key=run_key,
    )


def inference_variables(state: TrainState, initial_accumulator: float) -> Variables:
    """The model's variables as evaluation and serving use them; untrained rows read as unknown ids do."""
    tables = {
        name: inference_table(table, state.accumulators[name], initial_accumulator)
        for name, table in state.tables.items()
    }
    return {**state.dense_variables(), "tables": tables}
