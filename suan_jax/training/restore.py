"""A run's result, restored to be used: evaluated, started from, served."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import jax

from suan_jax.config import Config, MeshConfig
from suan_jax.config_dict import from_dict
from suan_jax.data.block import Log
from suan_jax.errors import UserError
from suan_jax.training.best import best_step
from suan_jax.training.checkpoint import Checkpoints
from suan_jax.training.metric_writer import read_metrics
from suan_jax.training.setup import Setup, set_up
from suan_jax.training.state import TrainState
from suan_jax.training.workdir import CONFIG, changes, read_config


def restore_run(workdir: Path, mesh: MeshConfig | None = None) -> tuple[Setup, TrainState]:
    """The best checkpoint of a work directory (the newest if no metric chooses), whatever it was trained on.

    Args:
      workdir: of a training run, which may be going on.
      mesh: where it shall live; by default the run's own mesh, or, where that does not fit this machine's
        devices, all of them along the data axis.

    Raises:
      UserError: if the directory holds no run, or no sound checkpoint yet.
    """
    config = read_config(workdir)
    if mesh is None:
        mesh = config.mesh if _fits(config.mesh) else MeshConfig()
    setup = set_up(dataclasses.replace(config, mesh=mesh))
    with _checkpoints(workdir, config) as (checkpoints, best):
        restored = checkpoints.restore(setup.abstract, best)
    if restored is None:
        raise UserError(_nothing_in(workdir))
    state, beside = restored
    _check_config(config, beside, workdir)
    check_log(setup.log, beside, workdir)
    return setup, state


def restore_learnt(workdir: Path, mesh: MeshConfig, dtype: str = "") -> tuple[Setup, TrainState, str]:
    """What the same checkpoint has learnt, to score with: nothing of the dense optimizer is read.

    Row accumulators are, as they tell which rows were trained.

    Args:
      workdir: as in `restore_run`.
      mesh: where it shall live.
      dtype: dtype of its activations; by default the run's own.

    Returns:
      The run, its state without `opt_state` and `key`, and what tells the checkpoint from others.

    Raises:
      UserError: as `restore_run`.
    """
    config = read_config(workdir)
    model = dataclasses.replace(config.model, dtype=dtype or config.model.dtype)
    setup = set_up(dataclasses.replace(config, model=model, mesh=mesh))
    left_out = {"opt_state": None, "key": None}
    wanted = {name: leaf for name, leaf in vars(setup.abstract).items() if name not in left_out}
    with _checkpoints(workdir, config) as (checkpoints, best):
        restored = checkpoints.restore_fields(wanted, best)
        if restored is None:
            raise UserError(_nothing_in(workdir))
        fields, beside, step = restored
        digest = checkpoints.digest(step)
    _check_config(config, beside, workdir)
    check_log(setup.log, beside, workdir)
    return setup, TrainState(**fields, **left_out), digest


@contextlib.contextmanager
def _checkpoints(workdir: Path, config: Config) -> Iterator[tuple[Checkpoints, int | None]]:
    """A run's checkpoints, to be read, and the step of the best one."""
    directory, metrics = workdir / "checkpoints", workdir / "metrics.jsonl"
    if not directory.is_dir():
        raise UserError(_nothing_in(workdir))
    checkpoints = Checkpoints(directory, read_only=True)
    try:
        rows = read_metrics(metrics) if metrics.exists() else []
        yield checkpoints, best_step(rows, config, checkpoints.steps())
    finally:
        checkpoints.close()


def _nothing_in(workdir: Path) -> str:
    return f"{workdir} holds no sound checkpoint: train it first"


def _check_config(config: Config, beside: dict, workdir: Path) -> None:
    """Checks that a run's config is the one that its checkpoint was trained by."""
    store = "data.store:"  # may have moved: `check_log` knows it by its contents
    changed = [each for each in changes(from_dict(beside["config"]), config) if not each.startswith(store)]
    if changed:
        raise UserError(
            f"{workdir / CONFIG} is not what its checkpoint was trained by ({'; '.join(changed)}): put the "
            "old values back"
        )


def check_log(log: Log, beside: dict, workdir: Path) -> None:
    """Checks that a checkpoint's ids are those of `log`.

    Args:
      log: what is to be read now.
      beside: the checkpoint's items beside its state.
      workdir: of the run.

    Raises:
      UserError: if the log was prepared again since.
    """
    if beside["iterator"]["log"] != log.fingerprint:
        raise UserError(
            f"{log} is not what {workdir} was trained on, it was prepared again since: put the old one back, "
            "or train anew in another --workdir"
        )


def _fits(mesh: MeshConfig) -> bool:
    sizes = (mesh.data, mesh.model)
    given = math.prod(size for size in sizes if size != -1)
    return jax.device_count() % given == 0 if -1 in sizes else jax.device_count() == given
