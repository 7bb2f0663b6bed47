"""The training step of one run, or of several in one program, stacked along a leading axis.

A small model leaves an accelerator idle, and every program costs its compilation. Runs that differ in seed
and peak learning rates alone take the same operations, so that one program takes them all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from suan_jax.batch import Batch
from suan_jax.config import Config
from suan_jax.config_dict import to_dict
from suan_jax.training.setup import Setup
from suan_jax.training.sharding import batch_sharding, place, stacked_sharding
from suan_jax.training.state import TrainState
from suan_jax.training.step import Metrics

_OWN = (("train", "seed"), ("optimizer", "learning_rate"), ("optimizer", "embedding_learning_rate"))


def shared_program(config: Config) -> str:
    """What runs of one program have in common: all of a config but its seed and peak learning rates."""
    fields = to_dict(config)
    for group, name in _OWN:
        del fields[group][name]
    return json.dumps(fields, sort_keys=True)


class JointStep:
    """`train_step` of the runs of one program; the state it is given is donated.

    A single run's state is its own; those of several are stacked, as `join` does.

    Attributes:
      step: the same on batches that `place` put on the devices.
    """

    def __init__(self, setups: Sequence[Setup]):
        """For runs of these set-ups, whose configs have one `shared_program`."""
        first = setups[0]
        self._count, self._alone = len(setups), len(setups) == 1
        paces = [setup.pace() for setup in setups]
        self.step = first.compile_step() if self._alone else first.compile_joint_step(_stack(paces))
        batches = batch_sharding(first.mesh)
        self._batches = batches if self._alone else stacked_sharding(batches)
        self._join = jax.jit(_stack, out_shardings=jax.tree.map(stacked_sharding, first.shardings()))
        self._pick = jax.jit(_pick, out_shardings=first.shardings())

    def join(self, states: Sequence[TrainState]) -> TrainState:
        """The runs' states as one."""
        return states[0] if self._alone else self._join(states)

    def __call__(self, state: TrainState, batches: Sequence[Batch]) -> tuple[TrainState, Metrics]:
        """Takes a step of every run on its own NumPy batch: the state, and metrics () or (runs,)."""
        return self.step(state, self.place(batches))

    def place(self, batches: Sequence[Batch]) -> Batch:
        """The runs' NumPy batches as one, on the devices, for `step`."""
        batch = batches[0] if self._alone else jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
        return place(self._batches, batch)

    def metrics(self, metrics: Metrics) -> list[dict[str, float]]:
        """Each run's metrics, read from the device."""
        values = {name: np.atleast_1d(value) for name, value in jax.device_get(metrics).items()}
        return [{name: float(value[index]) for name, value in values.items()} for index in range(self._count)]

    def state(self, state: TrainState, index: int) -> TrainState:
        """One run's state; a copy where there are several."""
        return state if self._alone else self._pick(state, index)


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _pick(tree: Any, index: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)
