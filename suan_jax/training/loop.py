"""The training job: train, evaluate now and then, save, and end with an evaluation, of the test split."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from suan_jax.config import Config
from suan_jax.config_check import validate
from suan_jax.errors import JobEnd, UserError
from suan_jax.files import write_json
from suan_jax.notice import notice
from suan_jax.processes import by_first, check_same, is_first
from suan_jax.progress import progress
from suan_jax.training.checkpoint import Checkpoints
from suan_jax.training.compilation import enable_compilation_cache
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.joint import JointStep, shared_program
from suan_jax.training.preemption import StopSignal
from suan_jax.training.run import Run
from suan_jax.training.setup import Setup, set_up
from suan_jax.training.sharding import check_batch_size
from suan_jax.training.state import TrainState
from suan_jax.training.step import Metrics
from suan_jax.training.versions import record_versions
from suan_jax.training.workdir import SUMMARY, check_unclaimed, claim, hold, read_summary, release


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
    result = _results({workdir: config}, set_up)[workdir]
    if isinstance(result, UserError):
        raise result
    return result


def train_together(configs: Mapping[Path, Config]) -> dict[Path, dict[str, Any] | UserError]:
    """Trains runs that differ in their seeds and peak learning rates alone, in one program.

    Each has its own work directory, data order and checkpoints, as if it were trained alone, and its numbers
    are those of a run alone but for rounding. Runs that were stopped at different steps go on one by one.

    Args:
      configs: work directory to run.

    Returns:
      Work directory to summary, as `train`, or to what made that run diverge, which does not stop the others.

    Raises:
      ValueError: if the runs differ in more.
      UserError, Preempted: as `train`.
    """
    if len({shared_program(config) for config in configs.values()}) > 1:
        raise ValueError("runs that train together may differ in seed and peak learning rates alone")
    return _results(configs, set_up)


def _results(
    configs: Mapping[Path, Config], set_up: Callable[[Config], Setup]
) -> dict[Path, dict[str, Any] | UserError]:
    """Work directory to summary, or to what made its run diverge; what has finished is not run again."""
    for workdir, config in configs.items():
        check_same(repr(config), "the config")
        validate(config)
        by_first(functools.partial(check_unclaimed, workdir, config))
    done = by_first(lambda: [_finished(workdir).exists() for workdir in configs])
    todo = {workdir: configs[workdir] for workdir, is_done in zip(configs, done, strict=True) if not is_done}
    diverged = _run(todo, set_up) if todo else {}
    return {
        workdir: diverged.get(workdir) or by_first(functools.partial(read_summary, workdir))
        for workdir in configs
    }


def _run(configs: Mapping[Path, Config], set_up: Callable[[Config], Setup]) -> dict[Path, UserError]:
    """Trains runs of one program, and returns what made some diverge."""
    enable_compilation_cache()
    diverged = {}
    with StopSignal() as stop, contextlib.ExitStack() as stack:
        first, *others = configs.values()
        setup = set_up(first)
        check_same(setup.log.fingerprint, str(setup.log))
        check_batch_size(setup.mesh, first.train, "batch_size", first.data.candidates)
        setups = [setup, *map(setup.of, others)]
        evaluation = Evaluation(setup)
        runs = [
            _open(own, workdir, evaluation, stop, stack) for own, workdir in zip(setups, configs, strict=True)
        ]
        alike = len({run.step for run in runs}) == 1
        for group in [runs] if alike else [[run] for run in runs]:
            together = _Together(group, stop)
            together.train()
            if stop.received:
                raise group[0].stopped()
            for run, summary in together.finish():
                by_first(functools.partial(write_json, _finished(run.workdir), summary))
            diverged |= {group[index].workdir: error for index, error in together.diverged.items()}
    return diverged


def _finished(workdir: Path) -> Path:
    return workdir / SUMMARY


def _open(
    setup: Setup, workdir: Path, evaluation: Evaluation, stop: StopSignal, stack: contextlib.ExitStack
) -> Run:
    """A run with its work directory held and claimed; `stack` lets go of it and closes its checkpoints."""
    by_first(functools.partial(hold, workdir, stack))
    new = by_first(functools.partial(claim, workdir, setup.config))
    check_same(str(workdir.is_dir()), f"the work directory {workdir}")
    checkpoints = Checkpoints(workdir / "checkpoints", setup.config.checkpoint.keep)
    stack.callback(checkpoints.close)
    try:
        run = Run(setup, workdir, checkpoints, evaluation, stop)
    except JobEnd:
        if new and is_first():
            release(workdir)  # so that the mistake can be put right in the config
        raise
    stack.callback(run.sync)  # whatever ends it
    by_first(functools.partial(record_versions, workdir, run.step))
    return run


class _Together:
    """Runs that stand at the same step, on their way to the last.

    Attributes:
      diverged: position of a run among them to what made it diverge.
    """

    def __init__(self, runs: Sequence[Run], stop: StopSignal):
        self._runs, self._stop = runs, stop
        self._joint = JointStep([run.setup for run in runs])
        self._state = self._joint.join([run.take_state() for run in runs])
        self._step = runs[0].step
        self._metrics: Metrics | None = None  # of the last step, not read yet
        self.diverged: dict[int, UserError] = {}

    def train(self) -> None:
        """Takes the steps that are left, and saves."""
        first, total = self._step, self._runs[0].setup.total_steps
        if first < total:
            notice("compiling the training step, which may take a minute")
        with progress(total, "training", self._step) as bar:
            while self._step < total and not self._stop.received and len(self.diverged) < len(self._runs):
                batches = [run.next_batch() for run in self._runs]
                self._state, metrics = self._joint(self._state, batches)
                if self._step == first:
                    bar.restart_clock()  # the call returned when it had compiled
                # A step's metrics are read while the next one runs, so that the device never waits.
                self._read_metrics()
                self._step, self._metrics = self._step + 1, metrics
                bar.advance()
                if self._runs[0].is_pause_due(self._step):
                    self._read_metrics()
                    self._each(lambda index, run: run.pause(self._step, self._state_of(index)))
            self._read_metrics()
        # All are saved before the first is evaluated: a stop in between loses none.
        self._each(lambda index, run: run.save(self._step, self._state_of(index)))

    def finish(self) -> Iterator[tuple[Run, dict[str, Any]]]:
        """Evaluates those that have not diverged, one after another, and sums them up."""
        for index, run in enumerate(self._runs):
            if index not in self.diverged:
                yield run, run.finish(self._state_of(index)) | {"trained_together": len(self._runs)}

    def _state_of(self, index: int) -> TrainState:
        return self._joint.state(self._state, index)

    def _read_metrics(self) -> None:
        if self._metrics is not None:
            values = self._joint.metrics(self._metrics)
            self._metrics = None
            self._each(lambda index, run: run.read_metrics(self._step, values[index]))

    def _each(self, act: Callable[[int, Run], None]) -> None:
        """Acts on the runs that have not diverged; one that does so now does not stop the others."""
        for index, run in enumerate(self._runs):
            if index not in self.diverged:
                try:
                    act(index, run)
                except UserError as error:
                    self.diverged[index] = error
