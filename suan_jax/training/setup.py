"""From a config to everything a run needs, in the order in which it is needed.

1. The log says the schema and the number of examples.
2. The schema and the config say the model, and with it every shape and logical axis.
3. The mesh and the logical axes say where each array lives.
4. Only then are arrays made, each on its own device.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import grain
import jax
import optax
from jax.sharding import AbstractMesh, Mesh

from suan_jax.batch import blank_batch
from suan_jax.config import Config
from suan_jax.data.assembly import EvaluationBatch
from suan_jax.data.block import Log
from suan_jax.data.log import open_log
from suan_jax.data.packing import training_rows
from suan_jax.data.pipeline import train_iterator
from suan_jax.data.selection import num_examples, train_selection
from suan_jax.errors import UserError
from suan_jax.models import Model, build
from suan_jax.training.checkpoint import abstract_with_sharding
from suan_jax.training.optimizer import Pace, Schedule, dense_optimizer, learning_rate_factor, pace
from suan_jax.training.sharding import make_mesh, own_shards, state_sharding
from suan_jax.training.state import TrainState, init_state
from suan_jax.training.step import TrainStep, compile_step, train_step

Watch = Callable[[Iterable[EvaluationBatch]], Iterable[EvaluationBatch]]  # may stop between two


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run before its first array. A job that trains in another way overrides its methods.

    Attributes:
      config: the run's config.
      log: the log it reads.
      train_examples: examples of one epoch.
      train_rows: rows of one epoch, fewer than its examples if they are packed.
      total_steps: steps of the whole run.
      model: the model.
      mesh: the devices.
      factor: learning rate at a step, as a share of the peak.
      optimizer: the dense optimizer.
      abstract: shapes, dtypes and shardings of the state.
      taught_by: what tells the weights that it learns from beside the log; empty if there are none. A run
        goes on only where it is the same.
    """

    config: Config
    log: Log
    train_examples: int
    train_rows: int
    total_steps: int
    model: Model
    mesh: Mesh
    factor: Schedule
    optimizer: optax.GradientTransformation
    abstract: TrainState
    taught_by: str = ""

    def shardings(self) -> TrainState:
        """The state's shardings."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract)

    def of(self, config: Config) -> Setup:
        """The set-up of a run that differs in seed or peak learning rates alone."""
        return dataclasses.replace(self, config=config)

    def fresh_state(self) -> TrainState:
        """The first state, made where it shall live."""
        return self._jitted_init()(jax.random.key(self.config.train.seed))

    def compile_fresh_state(self) -> Callable[[], TrainState]:
        """`fresh_state`, compiled ahead."""
        key = jax.random.key(self.config.train.seed)
        program = self._jitted_init().lower(key).compile()
        return lambda: program(key)

    def _jitted_init(self) -> jax.stages.Wrapped:
        # A CPU would spend longer on compiling this well than it takes to run once.
        options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
        return jax.jit(self._init, out_shardings=self.shardings(), compiler_options=options)

    def train_iterator(self) -> grain.DatasetIterator:
        """The batches that `compile_step` steps over, from the first on."""
        config = self.config
        shards = own_shards(self.mesh)
        return train_iterator(self.log, config.data, config.train.batch_size, config.train.seed, *shards)

    def pace(self) -> Pace:
        """How fast the run learns."""
        return pace(self.config.optimizer, self.total_steps)

    def compile_step(self) -> TrainStep:
        """A training step; the state it is given is donated."""
        return self.compile_joint_step(self.pace())

    def compile_joint_step(self, pace: Pace) -> TrainStep:
        """The same at another pace; at that of several runs, stacked, states and batches are stacked too."""
        step = functools.partial(train_step, self.model, self.optimizer, self.factor)
        return compile_step(step, pace, self.mesh, self.shardings())

    def summarise_more(self, state: TrainState, watch: Watch) -> dict[str, Any]:
        """What summary.json holds beside the run's point.

        Args:
          state: the one that was evaluated.
          watch: wraps the batches of an evaluation, to stop between two.
        """
        del state, watch
        return {}

    def _init(self, key: jax.Array) -> TrainState:
        batch = blank_batch(self.log.schema, 1, self.config.data.max_len)
        accumulator = self.config.optimizer.embedding_initial_accumulator
        return init_state(key, self.model, self.optimizer, accumulator, batch)


def set_up(config: Config, log: Log | None = None, mesh: Mesh | AbstractMesh | None = None) -> Setup:
    """Everything a run of `config` needs.

    Args:
      config: the run.
      log: the log that it names, if it is open already.
      mesh: what stands for `config.mesh`; a run of an abstract one has shapes and shardings, and no arrays.

    Raises:
      UserError: if the log, the mesh or the model's config is not right.
    """
    log = log or open_log(config.data)
    model = build(config, log.schema)
    if config.data.packing == "time" and config.model.across_time_refusal():
        raise UserError(
            "config.data.packing is 'time', expected 'none' or 'request', as scores of different times in "
            f"one row would not be exact: {config.model.across_time_refusal()}"
        )
    train_examples = num_examples(log, train_selection(config.data))
    train_rows = training_rows(log, config.data).total
    batch_rows = config.train.batch_size // config.data.candidates
    total_steps = config.train.steps or math.ceil(config.train.epochs * train_rows / batch_rows)
    mesh = mesh or make_mesh(config.mesh)
    logical_axes = model.logical_axes(blank_batch(log.schema, 1, config.data.max_len))
    factor = learning_rate_factor(config.optimizer)
    optimizer = dense_optimizer(config.optimizer, logical_axes["params"])
    setup = Setup(config, log, train_examples, train_rows, total_steps, model, mesh, factor, optimizer, None)
    abstract = jax.eval_shape(setup._init, jax.random.key(0))
    shardings = state_sharding(mesh, abstract, logical_axes, optimizer)
    return dataclasses.replace(setup, abstract=abstract_with_sharding(abstract, shardings))
