"""The training job: train, evaluate now and then, save, and end with an evaluation of the test split."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import jax
from absl import logging

from suan_jax.config import Config
from suan_jax.config_dict import to_dict
from suan_jax.data.pipeline import train_iterator
from suan_jax.errors import Preempted, UserError
from suan_jax.progress import progress
from suan_jax.training.checkpoint import Checkpoints
from suan_jax.training.clock import Clock
from suan_jax.training.compilation import enable_compilation_cache
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.metric_writer import MetricWriter
from suan_jax.training.preemption import StopSignal
from suan_jax.training.setup import Setup, set_up
from suan_jax.training.sharding import place_batch
from suan_jax.training.step import Metrics, compile_train_step
from suan_jax.training.summary import summarise
from suan_jax.training.warm_start import warm_start
from suan_jax.training.workdir import claim, read_json, write_json


def train(config: Config, workdir: Path) -> dict[str, Any]:
    """Trains `config` in `workdir`, going on from its newest checkpoint if there is one.

    Returns:
      The summary, as in summary.json. A run that has finished returns it at once.

    Raises:
      UserError: if the config, the log or the work directory is not right, or the loss is not finite.
      Preempted: after SIGTERM, with the state saved.
    """
    claim(workdir, config)
    finished = workdir / "summary.json"
    if finished.exists():
        return read_json(finished)
    enable_compilation_cache()
    setup = set_up(config)
    with StopSignal() as stop:
        checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint)
        try:
            run = _Run(setup, workdir, checkpoints, stop)
            run.train()
            summary = run.finish()
        finally:
            checkpoints.close()
    write_json(finished, summary)
    return summary


class _Run:
    """A training run, from the step at which it stands to its last."""

    def __init__(self, setup: Setup, workdir: Path, checkpoints: Checkpoints, stop: StopSignal):
        config = setup.config
        self._setup, self._config, self._workdir = setup, config, workdir
        self._checkpoints, self._stop = checkpoints, stop
        self._evaluation = Evaluation(setup)
        self._iterator = train_iterator(setup.log, config.data, config.train.batch_size, config.train.seed)
        restored = checkpoints.restore(setup.abstract)
        if restored is None:
            self._state, self._clock = setup.fresh_state(), Clock()
            if config.init_from:
                self._state = warm_start(self._state, setup, Path(config.init_from))
        else:
            self._state, position = restored
            self._iterator.set_state(position["iterator"])
            self._clock = Clock(**position["clock"])
        self._step = int(self._state.step)
        if self._step:
            logging.warning("%s goes on at step %d of %d", workdir, self._step, setup.total_steps)
        self._writer = MetricWriter(workdir, resume_step=self._step)

    def train(self) -> None:
        """Takes the steps that are left."""
        setup, config = self._setup, self._config
        step = compile_train_step(
            setup.model, setup.optimizer, config.optimizer, setup.factor, setup.mesh, setup.shardings()
        )
        unread: Metrics | None = None
        with progress(setup.total_steps, "training", self._step) as bar:
            while self._step < setup.total_steps:
                batch = place_batch(setup.mesh, next(self._iterator))
                self._state, metrics = step(self._state, batch)
                # A step's metrics are read while the next one runs, so that the device never waits.
                if unread is not None:
                    self._read_metrics(self._step, unread)
                self._step, unread = self._step + 1, metrics
                bar.advance()
                if self._stop.received or self._evaluates() or self._saves():
                    self._read_metrics(self._step, unread)
                    unread = None
                    self._pause()
            if unread is not None:
                self._read_metrics(self._step, unread)
        self._save()
        self._checkpoints.wait()

    def _evaluates(self) -> bool:
        every = self._config.train.eval_every
        return bool(every) and self._step % every == 0

    def _saves(self) -> bool:
        every = self._config.checkpoint.every
        return bool(every) and self._step % every == 0

    def _read_metrics(self, step: int, metrics: Metrics) -> None:
        """Waits for the metrics of a step, checks its loss, and writes its row if one is due."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self._clock.step(self._config.train.batch_size)
        if not math.isfinite(values["loss"]):
            first = (step - 1) * self._config.train.batch_size
            epoch, offset = divmod(first, self._setup.train_examples)
            saved = self._checkpoints.latest_step()
            raise UserError(
                f"the loss is {values['loss']} at step {step}, on the batch that starts at example {offset} "
                f"of epoch {epoch} (seed {self._config.train.seed}): lower optimizer.learning_rate or "
                f"optimizer.embedding_learning_rate, or look at those examples; the last checkpoint is "
                f"{'none' if saved is None else f'of step {saved}'}"
            )
        if step % self._config.train.log_every == 0 or step == self._setup.total_steps:
            self._writer.write(step, **values, examples_per_second=self._clock.examples_per_second())

    def _pause(self) -> None:
        """Evaluates and saves what is due, and stops if told to."""
        self._clock.pause()
        result = None
        if self._evaluates():
            split = self._config.train.eval_split
            result = self._evaluation.metrics(self._state, split)
            self._writer.write(self._step, split=split, **result)
        measured = self._config.checkpoint.best and result is not None
        if self._stop.received or self._saves() or measured:
            self._save(result)
        if self._stop.received:
            self._checkpoints.wait()
            raise Preempted(
                f"stopped by SIGTERM at step {self._step} of {self._setup.total_steps} and saved in "
                f"{self._workdir}: repeat the same command to go on"
            )

    def _save(self, metrics: dict[str, float] | None = None) -> None:
        position = {"iterator": self._iterator.get_state(), "clock": self._clock.to_dict()}
        self._checkpoints.save(self._state, position, to_dict(self._config), metrics)

    def finish(self) -> dict[str, Any]:
        """Evaluates the best state, or the last, on the test split and sums the run up."""
        state, best = self._state, self._checkpoints.best_step()
        if best != self._step:
            state, _ = self._checkpoints.restore(self._setup.abstract, best)
        message = f"stopped by SIGTERM while evaluating {self._workdir}: repeat the same command to go on"
        watch = functools.partial(self._stop.watch, message=message)
        result = self._evaluation.metrics(state, "test", watch)
        self._writer.write(self._step, split="test", **result)
        self._writer.close()
        return summarise(self._setup, state.params, result, self._clock)
