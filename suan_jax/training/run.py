"""One training run: its state, its place in the data, and what it leaves in its work directory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from suan_jax.batch import Batch
from suan_jax.config_dict import to_dict
from suan_jax.errors import Preempted, UserError
from suan_jax.files import write_array
from suan_jax.notice import notice
from suan_jax.paths import path_of
from suan_jax.processes import is_first
from suan_jax.training.best import best_step
from suan_jax.training.checkpoint import Checkpoints
from suan_jax.training.clock import Clock
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.metric_writer import MetricWriter
from suan_jax.training.preemption import StopSignal
from suan_jax.training.restore import check_log
from suan_jax.training.setup import Setup
from suan_jax.training.state import TrainState, is_finite
from suan_jax.training.summary import summarise
from suan_jax.training.warm_start import warm_start
from suan_jax.training.workdir import SCORES

Item = TypeVar("Item")


class Run:
    """A run from the step at which it stands to its last; who takes the steps hands it the states.

    Attributes:
      setup: what it runs on.
      workdir: its work directory.
      step: steps taken up to where it stood last, when it was opened or saved.
    """

    def __init__(
        self,
        setup: Setup,
        workdir: Path,
        checkpoints: Checkpoints,
        evaluation: Evaluation,
        stop: StopSignal,
    ):
        """Goes on from the newest sound checkpoint, or starts.

        Raises:
          UserError: if the checkpoints are of another log or model, or there is no run to start from.
        """
        config = setup.config
        self.setup, self.workdir, self._checkpoints = setup, workdir, checkpoints
        self._evaluation, self._stop = evaluation, stop
        self._iterator = setup.train_iterator()
        saved = checkpoints.steps()
        restored = checkpoints.restore(setup.abstract)
        if restored is None:
            self._state, self._clock = setup.fresh_state(), Clock()
            if config.init_from:
                self._state = warm_start(self._state, setup, path_of(config.init_from))
        else:
            self._state, beside = restored
            check_log(setup.log, beside, workdir)
            _check_teacher(setup, beside, workdir)
            self._iterator.set_state(beside["iterator"]["state"])
            self._clock = Clock(**beside["clock"])
        self.step = int(self._state.step)
        if restored is not None:
            notice(f"{workdir} goes on at step {self.step} of {setup.total_steps}")
        elif saved:
            notice(f"{workdir} starts anew, as none of its checkpoints is sound")
        self._writer = MetricWriter(workdir, resume_step=self.step)
        self._keep_best()
        if self._evaluates(self.step):  # it was stopped after the checkpoint of this step
            self._evaluate(self._state)

    def take_state(self) -> TrainState:
        """The state at which the run stands, which is its taker's from here on."""
        state, self._state = self._state, None
        return state

    def next_batch(self) -> Batch:
        """The batch of the next step, in NumPy."""
        return next(self._iterator)

    def read_metrics(self, step: int, values: dict[str, float]) -> None:
        """Takes note of what a step, which has just ended, says; writes its row if one is due.

        Raises:
          UserError: if the loss is not finite.
        """
        train = self.setup.config.train
        self._clock.step(int(values["examples"]))
        if not math.isfinite(values["loss"]):
            raise self._diverged(f"the loss is {values['loss']}", step)
        if step % train.log_every == 0 or step == self.setup.total_steps:
            self._writer.write(step, **values, examples_per_second=self._clock.examples_per_second())

    def is_pause_due(self, step: int) -> bool:
        """Whether the state after this step is to be saved or evaluated."""
        return self._saves(step) or self._evaluates(step)

    def pause(self, step: int, state: TrainState) -> None:
        """Saves and evaluates as is due. In this order, a stop in the midst of it repeats the evaluation."""
        self._clock.pause()
        if self._saves(step):
            self.save(step, state)
        if self._evaluates(step):
            self._evaluate(state)

    def save(self, step: int, state: TrainState) -> None:
        """Starts saving the state after `step`.

        Raises:
          UserError: if it is not finite.
        """
        self.step = step
        # A finite loss tells nothing of the update that follows it.
        if not is_finite(state):
            raise self._diverged("a parameter is not finite", step)
        source = {"log": self.setup.log.fingerprint, "taught_by": self.setup.taught_by}
        iterator = {**source, "state": self._iterator.get_state()}
        self._writer.sync()  # its rows are not written again
        self._checkpoints.save(state, iterator, self._clock.to_dict(), to_dict(self.setup.config))

    def stopped(self) -> Preempted:
        """Waits for what is being saved, and says how to go on."""
        self._checkpoints.wait()
        return Preempted(
            f"stopped by SIGTERM at step {self.step} of {self.setup.total_steps} and saved in "
            f"{self.workdir}: repeat the same command to go on"
        )

    def finish(self, state: TrainState) -> dict[str, Any]:
        """Evaluates the best state, or this one, the last, on the final split, and sums the run up.

        The row of metrics.jsonl is under the step of the state that was evaluated.
        """
        self._checkpoints.wait()
        best = self._best()
        if best not in (None, self.step):
            del state  # two states at once may not fit
            state, _ = self._checkpoints.restore(self.setup.abstract, best)
        step = int(state.step)
        train = self.setup.config.train
        if train.save_scores:
            scores = self._evaluation.scores(state, train.final_split, self._unless_stopped, depths=True)
            if is_first():
                write_array(self.workdir / SCORES, scores.table())
            result = scores.metrics()
        else:
            result = self._evaluation.metrics(state, train.final_split, self._unless_stopped, depths=True)
        self._writer.write(step, split=train.final_split, **result)
        self._writer.close()
        point = summarise(self.setup, state.params, step, result, self._clock)
        return point | self.setup.summarise_more(state, self._unless_stopped)

    def sync(self) -> None:
        """Returns when the rows of metrics.jsonl are where a kill leaves them."""
        self._writer.sync()

    def _evaluates(self, step: int) -> bool:
        """Whether the state is to be evaluated at this step, and was not before a resume."""
        train = self.setup.config.train
        due = bool(train.eval_every) and step > 0 and step % train.eval_every == 0
        return due and not self._writer.has(step, train.eval_split)

    def _saves(self, step: int) -> bool:
        config = self.setup.config
        evaluated = config.train.eval_every
        return step % config.checkpoint.every == 0 or (
            bool(config.checkpoint.best) and bool(evaluated) and step % evaluated == 0
        )

    def _evaluate(self, state: TrainState) -> None:
        split = self.setup.config.train.eval_split
        result = self._evaluation.metrics(state, split, self._unless_stopped)
        self._writer.write(int(state.step), split=split, **result)
        self._keep_best()

    def _best(self) -> int | None:
        return best_step(self._writer.rows(), self.setup.config, self._checkpoints.steps())

    def _keep_best(self) -> None:
        best = self._best()
        if best is not None:
            self._checkpoints.keep(best)

    def _diverged(self, what: str, step: int) -> UserError:
        train, candidates = self.setup.config.train, self.setup.config.data.candidates
        epoch, offset = divmod((step - 1) * (train.batch_size // candidates), self.setup.train_rows)
        saved = self._checkpoints.steps()
        return UserError(
            f"{what} at step {step}, on the batch that starts at "
            f"{'example' if candidates == 1 else 'row'} {offset} of epoch {epoch} "
            f"(seed {train.seed}): lower config.optimizer.learning_rate or "
            f"config.optimizer.embedding_learning_rate, or look at those examples; the last checkpoint is "
            f"{f'of step {saved[-1]}' if saved else 'none'}"
        )

    def _unless_stopped(self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            if self._stop.received:
                raise self.stopped()
            yield item


def _check_teacher(setup: Setup, beside: dict, workdir: Path) -> None:
    """Checks that what a run learns from is what it learnt from before."""
    if beside["iterator"].get("taught_by", "") != setup.taught_by:
        raise UserError(
            f"{workdir} was taught by another checkpoint of its teacher, or by another teacher: put that one "
            "back, or train anew in another --workdir"
        )
