"""Where a training step's time goes: its parts, each compiled alone from the functions that the step is of.

Alone, a part writes its results to memory and starts from there, and XLA merges nothing across parts: their
sum need not be the step. What it differs by is a row of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from suan_jax.batch import Batch
from suan_jax.benchmark.timing import Timing
from suan_jax.benchmark.training_step import BATCHES, abstract_batch, copy
from suan_jax.training.checkpoint import abstract_with_sharding
from suan_jax.training.setup import Setup
from suan_jax.training.state import TrainState
from suan_jax.training.step import loss_of, read_tables, update_dense, update_tables

GATHER, FORWARD, BOTH, DENSE, UPDATE = (
    "gather of the tables' rows",
    "forward",
    "forward and backward",
    "dense optimizer",
    "update of the tables' rows",
)
_RATE = 1e-3


def compiled_pieces(setup: Setup) -> dict[str, jax.stages.Compiled]:
    """A program for each part of the step of `setup`; makes no arrays."""
    model, optimizer, abstract = setup.model, setup.optimizer, setup.abstract
    shardings = setup.shardings()

    def loss(params: Any, rows: Any, state: TrainState, batch: Batch, found: Any) -> jax.Array:
        return loss_of(model, state, batch, found, lambda _: {})(params, rows)[0]

    def both(state: TrainState, batch: Batch, found: Any, rows: Any) -> tuple[Any, Any]:
        return jax.grad(loss, argnums=(0, 1))(state.params, rows, state, batch, found)

    def dense(params: Any, opt_state: Any, gradient: Any) -> tuple[Any, Any]:
        state = abstract.replace(params=params, opt_state=opt_state)
        return update_dense(optimizer, state, gradient, jnp.float32(_RATE))

    def update(tables: Any, accumulators: Any, batch: Batch, found: Any, gradient: Any) -> tuple[Any, Any]:
        start = {"step": jnp.int32(0), "key": jax.random.key(0)}
        state = abstract.replace(tables=tables, accumulators=accumulators, **start)
        return update_tables(state, batch, found, gradient, jnp.float32(_RATE))

    batch = abstract_batch(setup)
    read = jax.jit(functools.partial(read_tables, model))
    programs = {GATHER: read.lower(abstract, batch).compile()}
    found, rows = _results(read, programs[GATHER], abstract, batch)
    forward = jax.jit(lambda state, batch, found, rows: loss(state.params, rows, state, batch, found))
    programs[FORWARD] = forward.lower(abstract, batch, found, rows).compile()
    # The gradient of a parameter lies where the parameter does, summed over the devices.
    both = jax.jit(both, out_shardings=(shardings.params, None))
    programs[BOTH] = both.lower(abstract, batch, found, rows).compile()
    dense_gradient, row_gradient = _results(both, programs[BOTH], abstract, batch, found, rows)
    dense = jax.jit(dense, out_shardings=(shardings.params, shardings.opt_state), donate_argnums=(0, 1))
    programs[DENSE] = dense.lower(abstract.params, abstract.opt_state, dense_gradient).compile()
    update = jax.jit(update, out_shardings=(shardings.tables, shardings.accumulators), donate_argnums=(0, 1))
    tables = abstract.tables, abstract.accumulators
    programs[UPDATE] = update.lower(*tables, batch, found, row_gradient).compile()
    return programs


def _results(function: Callable[..., Any], program: jax.stages.Compiled, *given: Any) -> Any:
    """Shapes and shardings of what a program returns."""
    return abstract_with_sharding(jax.eval_shape(function, *given), program.output_shardings)


def piece_calls(
    programs: Mapping[str, jax.stages.Compiled], state: TrainState, batches: list[Batch]
) -> dict[str, Callable[[int], Any]]:
    """Each part as a function of the number of its call.

    Args:
      programs: of `compiled_pieces`.
      state: the run's first; it stays whole.
      batches: `BATCHES` on the device.
    """
    read = [programs[GATHER](state, batch) for batch in batches]
    gradients = programs[BOTH](state, batches[0], *read[0])
    updated = [copy(part) for part in ((state.params, state.opt_state), (state.tables, state.accumulators))]

    def dense(number: int) -> Any:
        del number
        updated[0] = programs[DENSE](*updated[0], gradients[0])
        return updated[0]

    def update(number: int) -> Any:
        del number
        updated[1] = programs[UPDATE](*updated[1], batches[0], read[0][0], gradients[1])
        return updated[1]

    def at(name: str) -> Callable[[int], Any]:
        return lambda number: programs[name](state, batches[number % BATCHES], *read[number % BATCHES])

    return {
        GATHER: lambda number: programs[GATHER](state, batches[number % BATCHES]),
        FORWARD: at(FORWARD),
        BOTH: at(BOTH),
        DENSE: dense,
        UPDATE: update,
    }


def split(step: Timing, pieces: Mapping[str, Timing]) -> dict[str, Timing]:
    """The step's parts, those of its whole: backward is what follows forward; and what the sum lacks."""
    parts = {
        GATHER: pieces[GATHER],
        FORWARD: pieces[FORWARD],
        "backward": pieces[BOTH] - pieces[FORWARD],
        DENSE: pieces[DENSE],
        UPDATE: pieces[UPDATE],
    }
    rest = functools.reduce(lambda left, part: left - part, parts.values(), step)
    return {**parts, "the rest": rest}
