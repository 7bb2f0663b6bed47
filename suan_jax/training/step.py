"""One training step and one scoring step, compiled for a mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from suan_jax.batch import Batch
from suan_jax.layers import embedding
from suan_jax.layers.loss import log_loss
from suan_jax.models.model import Model, Output, Variables
from suan_jax.training.optimizer import Pace, Schedule, global_norm
from suan_jax.training.sharding import batch_sharding, stacked_sharding
from suan_jax.training.state import TrainState
from suan_jax.training.table_update import Distinct, adagrad_rows, distinct, read_rows

Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
PerTable = dict[str, jax.Array]


def loss_terms(output: Output, batch: Batch) -> tuple[Metrics, Metrics]:
    """The terms that add up to the training loss, and what is reported beside them.

    The first are the binary cross-entropy over valid candidates, as `log_loss`, and the auxiliary losses.
    With scores at several depths, every depth is supervised: `log_loss` is their mean by
    `Output.depth_weights`, and each depth's own is reported as log_loss_depth_0 and so on;
    `Output.diagnostics` are reported as they are.
    """
    if output.depth_logits is None:
        return {"log_loss": log_loss(output.logits, batch), **output.auxiliary}, output.diagnostics
    losses = [log_loss(logits_BxM, batch) for logits_BxM in output.depth_logits]
    terms = {"log_loss": jnp.dot(output.depth_weights, jnp.stack(losses)), **output.auxiliary}
    return terms, {f"log_loss_depth_{depth}": loss for depth, loss in enumerate(losses)} | output.diagnostics


def train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    factor: Schedule,
    state: TrainState,
    batch: Batch,
    pace: Pace,
) -> tuple[TrainState, Metrics]:
    """`learn` from the labels and the model's own auxiliary losses alone: the next state, and the scalars."""
    return learn(model, optimizer, factor, state, batch, pace, lambda _: {})[:2]


def learn(
    model: Model,
    optimizer: optax.GradientTransformation,
    factor: Schedule,
    state: TrainState,
    batch: Batch,
    pace: Pace,
    more_terms: Callable[[Output], Metrics],
) -> tuple[TrainState, Metrics, jax.Array]:
    """Gradients of one batch, applied: dense parameters by `optimizer`, tables by row-wise Adagrad.

    Args:
      model: the model.
      optimizer: `dense_optimizer`.
      factor: learning rate at a step, as a share of the peak.
      state: the state.
      batch: the batch.
      pace: how fast the run learns.
      more_terms: what the training loss has beside `loss_terms`, by name.

    Returns:
      The next state; scalars: loss (all terms), what `loss_terms` says, learning_rate, grad_norm (dense
      gradients, before clipping), examples (candidates that are no pads); and the logits (B, M) that the
      gradients were taken at.
    """
    found, rows = read_tables(model, state, batch)
    loss = loss_of(model, state, batch, found, more_terms)
    (total, (terms, beside, updates, logits_BxM)), (dense_gradient, row_gradient) = jax.value_and_grad(
        loss, argnums=(0, 1), has_aux=True
    )(state.params, rows)
    scale = factor(state.step, pace.total_steps)
    params, opt_state = update_dense(optimizer, state, dense_gradient, pace.dense * scale)
    tables, accumulators = update_tables(state, batch, found, row_gradient, pace.embedding * scale)
    next_state = state.replace(
        step=state.step + 1,
        params=params,
        batch_stats=updates.get("batch_stats", state.batch_stats),
        opt_state=opt_state,
        tables=tables,
        accumulators=accumulators,
    )
    metrics = {
        "loss": total,
        **terms,
        **beside,
        "learning_rate": pace.dense * scale,
        "grad_norm": global_norm(dense_gradient),
        "examples": _examples(batch),
    }
    return next_state, metrics, logits_BxM


def read_tables(model: Model, state: TrainState, batch: Batch) -> tuple[dict[str, Distinct], PerTable]:
    """The distinct ids of a batch in each table, and their rows, (u, width)."""
    ids = embedding.batch_ids(model.lookups, batch)
    found = {name: distinct(ids[name], state.tables[name].shape[0]) for name in ids}
    return found, {name: read_rows(state.tables[name], found[name].ids) for name in found}


def loss_of(
    model: Model,
    state: TrainState,
    batch: Batch,
    found: dict[str, Distinct],
    more_terms: Callable[[Output], Metrics],
) -> Callable[[Any, PerTable], tuple[jax.Array, Any]]:
    """The training loss as a function of dense parameters and of the rows that `read_tables` gives.

    Beside the loss it returns `loss_terms` with `more_terms` among the first, the module's updates, and the
    logits (B, M). The other arguments are as in `learn`.
    """
    key = jax.random.fold_in(state.key, state.step)

    def loss(params: Any, rows: PerTable) -> tuple[jax.Array, Any]:
        flat = {name: rows[name][found[name].position] for name in rows}
        output, updates = model.apply_rows(
            {**state.dense_variables(), "params": params},
            embedding.batch_rows(model.lookups, batch, flat),
            batch,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        terms, beside = loss_terms(output, batch)
        terms |= more_terms(output)
        return sum(terms.values()), (terms, beside, updates, output.logits)

    return loss


def update_dense(
    optimizer: optax.GradientTransformation, state: TrainState, gradient: Any, learning_rate: jax.Array
) -> tuple[Any, Any]:
    """The next dense parameters and the next state of their optimizer."""
    changes, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    changes = jax.tree.map(lambda change: learning_rate * change, changes)
    return optax.apply_updates(state.params, changes), opt_state


def update_tables(
    state: TrainState,
    batch: Batch,
    found: dict[str, Distinct],
    gradient: PerTable,
    learning_rate: jax.Array,
) -> tuple[PerTable, PerTable]:
    """The next tables and accumulators, from the gradients of the batch's mean loss in the rows it read."""
    # Of the summed loss: how far a row moves must not depend on how many other examples share its batch.
    examples = _examples(batch)
    key = jax.random.fold_in(state.key, state.step)
    updated = {
        name: adagrad_rows(
            state.tables[name],
            state.accumulators[name],
            found[name].ids,
            examples * gradient[name],
            learning_rate,
            jax.random.fold_in(key, index),
        )
        for index, name in enumerate(sorted(found))
    }
    tables = {name: table for name, (table, _) in updated.items()}
    return tables, {name: accumulator for name, (_, accumulator) in updated.items()}


def _examples(batch: Batch) -> jax.Array:
    return jnp.sum(batch.candidate_mask).astype(jnp.float32)


def compile_step(
    step: Callable[..., tuple[TrainState, Metrics]],
    pace: Pace,
    mesh: Mesh,
    shardings: TrainState,
    *constants: Any,
) -> TrainStep:
    """`step(state, batch, pace, *constants)`, jitted for a mesh; the state it is given is donated.

    Args:
      step: takes a step of one run.
      pace: the run's; or that of several runs, stacked, and then so are state, batch and metrics.
      mesh: the devices.
      shardings: of one run's state.
      *constants: arrays that lie on the devices, such as another model's variables.
    """
    batches, whole = batch_sharding(mesh), NamedSharding(mesh, PartitionSpec())
    if pace.dense.ndim:
        step = jax.vmap(step, in_axes=(0, 0, 0, *(None for _ in constants)))
        shardings, batches = jax.tree.map(stacked_sharding, (shardings, batches))
    there = jax.tree.map(lambda leaf: leaf.sharding, constants)
    step = jax.jit(
        step,
        in_shardings=(shardings, batches, whole, *there),
        out_shardings=(shardings, whole),
        donate_argnums=0,
    )
    pace = jax.device_put(pace, whole)
    return lambda state, batch: step(state, batch, pace, *constants)


def compile_score(
    model: Model, mesh: Mesh, loops: int | None = None
) -> Callable[[Variables, Batch], jax.Array]:
    """Scores a batch with `inference_variables`: logits (B, M) float32 on every device.

    Args:
      model: the model.
      mesh: the devices.
      loops: calls of a looped model's block; None for a model without loops, or for as many as it says.
    """
    how = {} if loops is None else {"loops": loops}

    def score(variables: Variables, batch: Batch) -> jax.Array:
        return model.apply(variables, batch, train=False, **how).logits

    return jax.jit(score, out_shardings=NamedSharding(mesh, PartitionSpec()))


def compile_depth_score(model: Model, mesh: Mesh) -> Callable[[Variables, Batch], jax.Array]:
    """The same for every depth of a looped model in one pass: logits (n + 1, B, M) float32."""

    def score(variables: Variables, batch: Batch) -> jax.Array:
        return model.apply(variables, batch, train=False, all_depths=True).depth_logits

    return jax.jit(score, out_shardings=NamedSharding(mesh, PartitionSpec()))
