"""Whole training steps to be timed: set up on a log that no one reads, compiled ahead, fed from memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from suan_jax.batch import Batch, blank_batch
from suan_jax.benchmark.random_inputs import full_batch
from suan_jax.config import Config, DataConfig, MeshConfig, SyntheticConfig, TrainConfig
from suan_jax.models.model import ModelDefinition
from suan_jax.training.setup import Setup, set_up
from suan_jax.training.sharding import batch_sharding, make_mesh, place_batch
from suan_jax.training.state import TrainState
from suan_jax.training.step import TrainStep

BATCHES = 4
"""Batches of a model, taken in turns."""


def set_up_step(
    model: ModelDefinition,
    max_len: int,
    batch_size: int,
    items: int,
    candidates: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Setup:
    """The training step of a model.

    Args:
      model: the model.
      max_len: L.
      batch_size: examples of a step.
      items: items of the catalogue.
      candidates: M; above 1, rows are of candidates across time.
      devices: those that share each batch; all of them unless given.
    """
    packing = {"packing": "time", "candidates": candidates} if candidates > 1 else {}
    synthetic = SyntheticConfig(users=512, items=items)  # few, for no user is read
    config = Config(
        model=model,
        data=DataConfig(synthetic=synthetic, max_len=max_len, **packing),
        train=TrainConfig(batch_size=batch_size, eval_batch_size=batch_size),
    )
    return set_up(config, mesh=make_mesh(MeshConfig(), devices and list(devices)))


def abstract_batch(setup: Setup) -> Batch:
    """Shapes, dtypes and shardings of its batches."""
    config, sharding = setup.config, batch_sharding(setup.mesh)
    rows = config.train.batch_size // config.data.candidates
    batch = blank_batch(setup.log.schema, rows, config.data.max_len, config.data.candidates)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), batch)


def lowered_step(setup: Setup) -> jax.stages.Lowered:
    """Its step, as training takes it, to be compiled."""
    return jax.jit(setup.compile_step(), donate_argnums=0).lower(setup.abstract, abstract_batch(setup))


def compiled_step(setup: Setup) -> jax.stages.Compiled:
    """The same compiled; makes no arrays."""
    return lowered_step(setup).compile()


def host_batches(setup: Setup) -> list[Batch]:
    """`BATCHES` batches in NumPy; the same ones for every model."""
    config, random = setup.config, np.random.default_rng(0)
    max_len, candidates = config.data.max_len, config.data.candidates
    rows = config.train.batch_size // candidates
    return [full_batch(random, setup.log.schema, rows, max_len, candidates) for _ in range(BATCHES)]


def device_batches(setup: Setup) -> list[Batch]:
    """The same on the devices."""
    return [place_batch(setup.mesh, batch) for batch in host_batches(setup)]


@jax.jit
def copy(tree: Any) -> Any:
    """Arrays of their own, to be donated."""
    return jax.tree.map(jnp.copy, tree)


def stepper(
    setup: Setup, step: TrainStep, state: TrainState | None = None, batches: list[Batch] | None = None
) -> Callable[[int], Any]:
    """Takes the training step `number`; the state, donated to it, is kept inside.

    Args:
      setup: of `set_up_step`.
      step: its step.
      state: the first, given away; a fresh one unless given.
      batches: `device_batches`, if they are there already.
    """
    batches = batches or device_batches(setup)
    state = state or setup.fresh_state()

    def call(number: int) -> Any:
        nonlocal state
        state, metrics = step(state, batches[number % BATCHES])
        return state, metrics

    return call
