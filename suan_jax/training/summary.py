"""A run's point: what it scored, and everything a scaling law may be fitted on."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import numpy as np

from suan_jax.data.pipeline import evaluation_batches
from suan_jax.models.model import Model, ModelDefinition
from suan_jax.schema import Schema
from suan_jax.training.clock import Clock
from suan_jax.training.setup import Setup

_LENGTH_BATCHES = 8  # batches of the test split that stand for its history lengths


def count_parameters(model: Model, params: Any) -> dict[str, int]:
    """Numbers of parameters: embedding, dense, head, body (dense without the head), once and recurrent.

    `recurrent` are the body's parameters that a loop applies several times, `once` the body's others. What
    only an auxiliary loss reads ("auxiliary") counts nowhere: it is gone when a model is used.
    """

    def size(tree: Any) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    tables = {lookup.table: lookup.rows * lookup.width for lookup in model.lookups}
    dense, head, recurrent = size(params), size(params.get("head", {})), size(params.get("loop", {}))
    dense -= size(params.get("auxiliary", {}))
    body = dense - head
    return {
        "embedding": sum(tables.values()),
        "dense": dense,
        "head": head,
        "body": body,
        "once": body - recurrent,
        "recurrent": recurrent,
    }


def history_lengths(setup: Setup) -> np.ndarray:
    """Lengths of a sample of the test split's histories, (n,) int."""
    lengths = []
    config = setup.config
    batches = evaluation_batches(setup.log, "test", config.train.eval_batch_size, config.data.max_len)
    for item in itertools.islice(batches, _LENGTH_BATCHES):
        lengths.append(item.batch.visible[item.batch.candidate_mask])
    return np.concatenate(lengths)


def summarise(
    setup: Setup, params: Any, step: int, metrics: dict[str, float], clock: Clock
) -> dict[str, Any]:
    """The content of summary.json: `examples` were trained on, of the `train_examples` of an epoch.

    `train_flops` are those of the rows as they ran, empty candidate slots included.

    Args:
      setup: the run.
      params: its dense parameters.
      step: of the state that was evaluated, the last or the best.
      metrics: of that state on the final split.
      clock: the run's clock, after its last step.
    """
    config, schema = setup.config, setup.log.schema
    device = jax.devices()[0]
    point = planned(setup, params)
    return {
        **point,
        **metrics,
        "examples": clock.trained,
        "candidates_per_row": clock.trained / _rows(setup),
        "evaluated_step": step,
        "seconds": clock.seconds,
        "examples_per_second": clock.examples / clock.seconds if clock.seconds else None,
        "useful_flops": config.model.useful_flops(schema, history_lengths(setup)),
        "device": device.device_kind,
        "device_count": jax.device_count(),
    }


def planned(setup: Setup, params: Any) -> dict[str, Any]:
    """The part of a run's point that is known before it is trained; packed examples are nearly so.

    Args:
      setup: the run.
      params: its dense parameters, or their shapes.
    """
    config, schema = setup.config, setup.log.schema
    length = config.data.max_len
    row_flops = config.model.training_flops_per_row(schema, length, config.data.candidates)
    return {
        "model": config.model.name,
        "grade": config.model.grade,
        "seed": config.train.seed,
        "max_len": length,
        "train_fraction": config.data.train_fraction,
        "learning_rate": config.optimizer.learning_rate,
        "batch_size": config.train.batch_size,
        **_loops(config.model, schema, length),
        "split": config.train.final_split,
        "train_examples": setup.train_examples,
        "examples": round(_rows(setup) * setup.train_examples / setup.train_rows),
        "steps": setup.total_steps,
        "params": count_parameters(setup.model, params),
        "flops_per_example": config.model.flops_per_example(schema, length),
        "train_flops": row_flops * _rows(setup),
    }


def _rows(setup: Setup) -> int:
    """Rows of all batches of a run."""
    return setup.total_steps * (setup.config.train.batch_size // setup.config.data.candidates)


def flops_by_loops(definition: ModelDefinition, schema: Schema, max_len: int) -> list[float]:
    """`flops_per_example` of a looped model inferred with 0, 1, ... n loops."""
    depths = range(definition.loops().trained + 1)
    at_depth = (dataclasses.replace(definition, inferred_loops=depth) for depth in depths)
    return [model.flops_per_example(schema, max_len) for model in at_depth]


def _loops(definition: ModelDefinition, schema: Schema, max_len: int) -> dict[str, Any]:
    """What a looped model adds: the loops of its headline, those it was trained with, and FLOPs by depth."""
    loops = definition.loops()
    if loops is None:
        return {}
    return {
        "inferred_loops": loops.inferred,
        "loops_trained": loops.trained,
        "flops_by_loops": flops_by_loops(definition, schema, max_len),
    }
