"""Starting from another run's weights: yesterday's model on today's log."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
from flax import traverse_util

from suan_jax.data.block import Log
from suan_jax.data.store import Store
from suan_jax.errors import UserError
from suan_jax.schema import OOV, PAD
from suan_jax.training.restore import restore_run
from suan_jax.training.setup import Setup
from suan_jax.training.state import TrainState


def warm_start(state: TrainState, setup: Setup, source: Path) -> TrainState:
    """`state` with the weights of the run in the work directory `source`.

    The model must be the same, and dense parameters and running statistics have the same shapes. Table rows,
    and their Adagrad accumulators, follow the raw id that they stand for; ids the other run did not know keep
    their fresh rows. The step and the dense optimizer start anew.

    Raises:
      UserError: if `source` holds no checkpoint, or its model does not fit.
    """
    try:
        other, old = restore_run(source, setup.config.mesh)
    except UserError as error:
        raise UserError(f"config.init_from: {error}") from error
    _check_same_model(setup, other, source)
    _check_same_shapes(state, old, source)
    tables, accumulators = {}, {}
    vocabulary = {lookup.table: lookup.vocabulary for lookup in setup.model.lookups}
    # What a row has gathered is kept, as it tells that the row was trained.
    initial = [run.config.optimizer.embedding_initial_accumulator for run in (setup, other)]
    for name in state.tables:
        try:
            here, there = shared_ids(vocabulary[name], setup.log, other.log)
        except UserError as error:
            raise UserError(f"config.init_from: {error}") from error
        gathered = old.accumulators[name][there] - np.float32(initial[1])
        tables[name] = (
            state.tables[name].at[here].set(old.tables[name][there].astype(state.tables[name].dtype))
        )
        accumulators[name] = state.accumulators[name].at[here].set(np.float32(initial[0]) + gathered)
    moved = state.replace(
        params=old.params,
        batch_stats=old.batch_stats,
        constants=old.constants,
        tables=tables,
        accumulators=accumulators,
    )
    return jax.device_put(moved, setup.shardings())


def _check_same_model(setup: Setup, other: Setup, source: Path) -> None:
    here, there = setup.config.model.name, other.config.model.name
    if here != there:
        raise UserError(f"config.init_from={source} is a run of the model {there!r}, expected {here!r}")


def _check_same_shapes(state: TrainState, old: TrainState, source: Path) -> None:
    def shapes(tree: TrainState) -> dict[str, tuple[int, ...]]:
        dense = traverse_util.flatten_dict(tree.dense_variables(), sep="/")
        widths = {f"tables/{name}": table.shape[1:] for name, table in tree.tables.items()}
        return {path: leaf.shape for path, leaf in dense.items()} | widths

    here, there = shapes(state), shapes(old)
    different = sorted(path for path in {*here, *there} if here.get(path) != there.get(path))
    if different:
        path = different[0]
        raise UserError(
            f"config.init_from={source} is of another model: {len(different)} arrays differ, first {path}, "
            f"{there.get(path, 'missing')} there and {here.get(path, 'missing')} here"
        )


def shared_ids(vocabulary: str, log: Log, other: Log) -> tuple[np.ndarray, np.ndarray]:
    """Ids of this log, and of the other, that mean the same, (n,) each.

    Ids without raw values (hashed, bucketed, generated) mean themselves, if there are as many of them.

    Raises:
      UserError: if there are not as many.
    """
    if _has_vocabulary(log, vocabulary) and _has_vocabulary(other, vocabulary):
        here, there = log.vocabulary(vocabulary), other.vocabulary(vocabulary)
        both = here.join(there, on="raw", how="inner", suffix="_there", maintain_order="left")
        special = np.array([PAD, OOV])
        return (
            np.concatenate([special, both["id"].to_numpy()]),
            np.concatenate([special, both["id_there"].to_numpy()]),
        )
    sizes = log.schema.tables[vocabulary], other.schema.tables[vocabulary]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"table {vocabulary} has {sizes[1]} ids there and {sizes[0]} here, and no raw values to match "
            "them by"
        )
    return np.arange(sizes[0]), np.arange(sizes[0])


def _has_vocabulary(log: Log, table: str) -> bool:
    """Whether the log knows the raw values behind a table's ids."""
    return isinstance(log, Store) and table in log.vocabularies
