"""Evaluating a training state on a split of its log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from suan_jax.data.assembly import EvaluationBatch
from suan_jax.data.log import with_truth
from suan_jax.data.pipeline import evaluation_batches
from suan_jax.data.selection import Selection, num_examples
from suan_jax.errors import UserError
from suan_jax.evaluation import evaluator
from suan_jax.models import ModelDefinition
from suan_jax.progress import progress
from suan_jax.training.setup import Setup, Watch
from suan_jax.training.sharding import check_batch_size, gather_rows, own_shards, place_batch
from suan_jax.training.state import TrainState, inference_variables
from suan_jax.training.step import compile_depth_score, compile_score


class Evaluation:
    """Scores splits with a run's states; programs are compiled once.

    Tables are copied for the time of an evaluation, with untrained rows read as unknown ids.
    """

    def __init__(self, setup: Setup, loops: int | None = None):
        """For the states of `setup`.

        Args:
          setup: the run.
          loops: calls of a looped model's block; None for as many as its config says.

        Raises:
          UserError: if the mesh does not divide the size of an evaluation batch, or the model cannot be
            called with so many loops.
        """
        check_batch_size(setup.mesh, setup.config.train, "eval_batch_size")
        self._loops = _checked_loops(setup.config.model, loops)
        self._setup = setup
        self._log = with_truth(setup.log, setup.config.data)
        accumulator = setup.config.optimizer.embedding_initial_accumulator
        self._variables = jax.jit(lambda state: inference_variables(state, accumulator))
        self._score = compile_score(setup.model, setup.mesh, loops)
        self._depth_score = compile_depth_score(setup.model, setup.mesh)

    def metrics(
        self, state: TrainState, split: str, watch: Watch = lambda items: items, depths: bool = False
    ) -> dict[str, Any]:
        """Metrics of a split.

        Args:
          state: the state.
          split: "train", "validation" or "test".
          watch: may wrap the batches, to stop between two.
          depths: whether all depths of a looped model are scored, in the same pass.
        """
        return evaluator.evaluate(
            watch(self._items(split)),
            self._logits(state, depths),
            self._setup.config.data.negative_rate,
            num_examples(self._log, Selection((split,))),
            self._loops or 0,
            whole=self._whole,
        )

    def scores(
        self, state: TrainState, split: str, watch: Watch = lambda items: items, depths: bool = False
    ) -> evaluator.Scores:
        """Every example of a split with its logit; arguments as for `metrics`."""
        return evaluator.score(
            watch(self._items(split)),
            self._logits(state, depths),
            self._setup.config.data.negative_rate,
            self._loops or 0,
            self._whole,
        )

    def _logits(self, state: TrainState, depths: bool) -> Callable[[EvaluationBatch], np.ndarray]:
        variables = self._variables(state)
        score = self._score if self._loops is None or not depths else self._depth_score
        return lambda item: score(variables, place_batch(self._setup.mesh, item.batch))

    def _whole(self, item: EvaluationBatch) -> EvaluationBatch:
        """An item with what all processes know of its rows beside the model's input."""
        batch = item.batch
        user, truth, label, mask = gather_rows(
            self._setup.mesh, (item.user, item.truth, batch.label, batch.candidate_mask)
        )
        return EvaluationBatch(batch.replace(label=label, candidate_mask=mask), user, truth)

    def _items(self, split: str) -> Iterator[EvaluationBatch]:
        config = self._setup.config
        size = config.train.eval_batch_size
        batches = -(-num_examples(self._log, Selection((split,))) // size)
        shards = own_shards(self._setup.mesh)
        with progress(batches, f"evaluating {split}") as bar:
            data = config.data
            for item in evaluation_batches(self._log, split, size, data.max_len, *shards, data.threads):
                yield item
                bar.advance()


def _checked_loops(definition: ModelDefinition, loops: int | None) -> int | None:
    """Calls of a looped model's block, as asked for or as its config says; None for a model without loops."""
    own = definition.loops()
    if own is None:
        if loops is not None:
            raise UserError(f"loops is {loops}, expected none, as {definition.name} has no loops")
        return None
    if loops is None:
        return own.inferred
    if not 0 <= loops <= own.trained:
        raise UserError(f"loops is {loops}, expected 0 to {own.trained}, the loops it was trained with")
    return loops
