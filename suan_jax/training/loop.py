"""The training job: train, evaluate now and then, save, and end with an evaluation, of the test split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jax

from suan_jax.config import Config
from suan_jax.config_check import validate
from suan_jax.config_dict import to_dict
from suan_jax.errors import Preempted, UserError
from suan_jax.files import read_json, write_array, write_json
from suan_jax.notice import notice
from suan_jax.progress import progress
from suan_jax.training.best import best_step
from suan_jax.training.checkpoint import Checkpoints
from suan_jax.training.clock import Clock
from suan_jax.training.compilation import enable_compilation_cache
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.metric_writer import MetricWriter
from suan_jax.training.preemption import StopSignal
from suan_jax.training.restore import check_log
from suan_jax.training.setup import Setup, set_up
from suan_jax.training.sharding import check_batch_size, place_batch
from suan_jax.training.state import is_finite
from suan_jax.training.step import Metrics
from suan_jax.training.summary import summarise
from suan_jax.training.warm_start import warm_start
from suan_jax.training.workdir import SCORES, check_unclaimed, claim, release

Item = TypeVar("Item")


def train(config: Config, workdir: Path, set_up: Callable[[Config], Setup] = set_up) -> dict[str, Any]:
    """Trains `config` in `workdir`, going on from its newest sound checkpoint if there is one.

    Args:
      config: the run.
      workdir: its work directory.
      set_up: makes what the run needs, and with it says how it trains.

    Returns:
      The summary, as in summary.json. A run that has finished returns it at once.

    Raises:
      UserError: if the config, the log or the work directory is not right, or the run diverges.
      Preempted: after SIGTERM, with the state saved.
    """
    validate(config)
    check_unclaimed(workdir, config)
    finished = workdir / "summary.json"
    if finished.exists():
        return read_json(finished)
    enable_compilation_cache()
    with StopSignal() as stop:
        setup = set_up(config)
        check_batch_size(setup.mesh, config.train, "batch_size")
        new = claim(workdir, config)
        checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep)
        try:
            try:
                run = _Run(setup, workdir, checkpoints, stop)
            except UserError:
                if new:
                    release(workdir)  # so that the mistake can be put right in the config
                raise
            run.train()
            summary = run.finish()
        finally:
            checkpoints.close()
    write_json(finished, summary)
    return read_json(finished)  # as any later call does


class _Run:
    """A training run, from the step at which it stands to its last."""

    def __init__(self, setup: Setup, workdir: Path, checkpoints: Checkpoints, stop: StopSignal):
        config = setup.config
        self._setup, self._config, self._workdir = setup, config, workdir
        self._checkpoints, self._stop = checkpoints, stop
        self._evaluation = Evaluation(setup)
        self._iterator = setup.train_iterator()
        saved = checkpoints.steps()
        restored = checkpoints.restore(setup.abstract)
        if restored is None:
            self._state, self._clock = setup.fresh_state(), Clock()
            if config.init_from:
                self._state = warm_start(self._state, setup, Path(config.init_from))
        else:
            self._state, beside = restored
            check_log(setup.log, beside, workdir)
            _check_teacher(setup, beside, workdir)
            self._iterator.set_state(beside["iterator"]["state"])
            self._clock = Clock(**beside["clock"])
        self._step = int(self._state.step)
        if restored is not None:
            notice(f"{workdir} goes on at step {self._step} of {setup.total_steps}")
        elif saved:
            notice(f"{workdir} starts anew, as none of its checkpoints is sound")
        self._writer = MetricWriter(workdir, resume_step=self._step)
        self._keep_best()

    def train(self) -> None:
        """Takes the steps that are left."""
        setup = self._setup
        step = setup.compile_step()
        if self._evaluates():  # it was stopped after the checkpoint of this step
            self._evaluate()
        unread: Metrics | None = None
        with progress(setup.total_steps, "training", self._step) as bar:
            while self._step < setup.total_steps and not self._stop.received:
                batch = place_batch(setup.mesh, next(self._iterator))
                self._state, metrics = step(self._state, batch)
                # A step's metrics are read while the next one runs, so that the device never waits.
                if unread is not None:
                    self._read_metrics(self._step, unread)
                self._step, unread = self._step + 1, metrics
                bar.advance()
                if self._saves() or self._evaluates():
                    self._read_metrics(self._step, unread)
                    unread = None
                    self._pause()
            if unread is not None:
                self._read_metrics(self._step, unread)
        if self._stop.received:
            self._leave()
        self._save()
        self._checkpoints.wait()

    def finish(self) -> dict[str, Any]:
        """Evaluates the best state, or the last, on the final split, at all depths, and sums the run up.

        The row of metrics.jsonl is under the step of the state that was evaluated.
        """
        best = self._best()
        if best not in (None, self._step):
            self._state = None  # two states at once may not fit
            self._state, _ = self._checkpoints.restore(self._setup.abstract, best)
        step = int(self._state.step)
        train = self._config.train
        if train.save_scores:
            scores = self._evaluation.scores(
                self._state, train.final_split, self._unless_stopped, depths=True
            )
            write_array(self._workdir / SCORES, scores.table())
            result = scores.metrics()
        else:
            result = self._evaluation.metrics(
                self._state, train.final_split, self._unless_stopped, depths=True
            )
        self._writer.write(step, split=train.final_split, **result)
        self._writer.close()
        point = summarise(self._setup, self._state.params, step, result, self._clock)
        return point | self._setup.summarise_more(self._state, self._unless_stopped)

    def _evaluates(self) -> bool:
        """Whether the state is to be evaluated at this step, and was not before a resume."""
        every, split = self._config.train.eval_every, self._config.train.eval_split
        due = bool(every) and self._step > 0 and self._step % every == 0
        return due and not self._writer.has(self._step, split)

    def _saves(self) -> bool:
        best, evaluated = self._config.checkpoint.best, self._config.train.eval_every
        return self._step % self._config.checkpoint.every == 0 or (
            bool(best) and bool(evaluated) and self._step % evaluated == 0
        )

    def _pause(self) -> None:
        """Saves and evaluates as is due. In this order, a stop in the midst of it repeats the evaluation."""
        self._clock.pause()
        if self._saves():
            self._save()
        if self._evaluates():
            self._evaluate()

    def _evaluate(self) -> None:
        split = self._config.train.eval_split
        result = self._evaluation.metrics(self._state, split, self._unless_stopped)
        self._writer.write(self._step, split=split, **result)
        self._keep_best()

    def _best(self) -> int | None:
        return best_step(self._writer.rows(), self._config, self._checkpoints.steps())

    def _keep_best(self) -> None:
        best = self._best()
        if best is not None:
            self._checkpoints.keep(best)

    def _read_metrics(self, step: int, metrics: Metrics) -> None:
        """Waits for the metrics of a step, checks its loss, and writes its row if one is due."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self._clock.step(self._config.train.batch_size)
        if not math.isfinite(values["loss"]):
            self._diverged(f"the loss is {values['loss']}", step)
        if step % self._config.train.log_every == 0 or step == self._setup.total_steps:
            self._writer.write(step, **values, examples_per_second=self._clock.examples_per_second())

    def _save(self) -> None:
        # A finite loss tells nothing of the update that follows it.
        if not is_finite(self._state):
            self._diverged("a parameter is not finite", self._step)
        setup = self._setup
        source = {"log": setup.log.fingerprint, "taught_by": setup.taught_by}
        iterator = {**source, "state": self._iterator.get_state()}
        self._checkpoints.save(self._state, iterator, self._clock.to_dict(), to_dict(self._config))

    def _diverged(self, what: str, step: int) -> NoReturn:
        train = self._config.train
        epoch, offset = divmod((step - 1) * train.batch_size, self._setup.train_examples)
        saved = self._checkpoints.steps()
        raise UserError(
            f"{what} at step {step}, on the batch that starts at example {offset} of epoch {epoch} "
            f"(seed {train.seed}): lower config.optimizer.learning_rate or "
            f"config.optimizer.embedding_learning_rate, or look at those examples; the last checkpoint is "
            f"{f'of step {saved[-1]}' if saved else 'none'}"
        )

    def _unless_stopped(self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            if self._stop.received:
                self._leave()
            yield item

    def _leave(self) -> NoReturn:
        self._save()
        self._checkpoints.wait()
        raise Preempted(
            f"stopped by SIGTERM at step {self._step} of {self._setup.total_steps} and saved in "
            f"{self._workdir}: repeat the same command to go on"
        )


def _check_teacher(setup: Setup, beside: dict, workdir: Path) -> None:
    """Checks that what a run learns from is what it learnt from before."""
    if beside["iterator"].get("taught_by", "") != setup.taught_by:
        raise UserError(
            f"{workdir} was taught by another checkpoint of its teacher, or by another teacher: put that one "
            "back, or train anew in another --workdir"
        )
