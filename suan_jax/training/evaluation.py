"""Evaluating a training state on a split of its log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from suan_jax.data.assembly import EvaluationBatch
from suan_jax.data.log import with_truth
from suan_jax.data.pipeline import evaluation_batches
from suan_jax.data.selection import Selection, num_examples
from suan_jax.evaluation import evaluator
from suan_jax.progress import progress
from suan_jax.training.setup import Setup
from suan_jax.training.sharding import check_batch_size, place_batch
from suan_jax.training.state import TrainState, inference_variables
from suan_jax.training.step import compile_score

Watch = Callable[[Iterable[EvaluationBatch]], Iterable[EvaluationBatch]]


class Evaluation:
    """Scores splits with a run's states; programs are compiled once.

    Tables are copied for the time of an evaluation, with untrained rows read as unknown ids.
    """

    def __init__(self, setup: Setup):
        """For the states of `setup`.

        Raises:
          UserError: if the mesh does not divide the size of an evaluation batch.
        """
        check_batch_size(setup.mesh, setup.config.train, "eval_batch_size")
        self._setup = setup
        self._log = with_truth(setup.log, setup.config.data)
        accumulator = setup.config.optimizer.embedding_initial_accumulator
        self._variables = jax.jit(lambda state: inference_variables(state, accumulator))
        self._score = compile_score(setup.model, setup.mesh)

    def metrics(self, state: TrainState, split: str, watch: Watch = lambda items: items) -> dict[str, float]:
        """Metrics of a split; `watch` may wrap the batches, to stop between two."""
        examples = num_examples(self._log, Selection((split,)))
        return evaluator.evaluate(
            watch(self._items(split)), self._logits(state), self._setup.config.data.negative_rate, examples
        )

    def scores(self, state: TrainState, split: str, watch: Watch = lambda items: items) -> evaluator.Scores:
        """Every example of a split with its logit."""
        rate = self._setup.config.data.negative_rate
        return evaluator.score(watch(self._items(split)), self._logits(state), rate)

    def _logits(self, state: TrainState) -> Callable[[EvaluationBatch], np.ndarray]:
        variables = self._variables(state)
        return lambda item: self._score(variables, place_batch(self._setup.mesh, item.batch))

    def _items(self, split: str) -> Iterator[EvaluationBatch]:
        config = self._setup.config
        size = config.train.eval_batch_size
        batches = -(-num_examples(self._log, Selection((split,))) // size)
        with progress(batches, f"evaluating {split}") as bar:
            for item in evaluation_batches(self._log, split, size, config.data.max_len):
                yield item
                bar.advance()
