"""A run's result, restored to be used: evaluated, started from, served."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import jax

from suan_jax.config import MeshConfig
from suan_jax.data.block import Log
from suan_jax.errors import UserError
from suan_jax.training.best import best_step
from suan_jax.training.checkpoint import Checkpoints
from suan_jax.training.metric_writer import read_metrics
from suan_jax.training.setup import Setup, set_up
from suan_jax.training.state import TrainState
from suan_jax.training.workdir import read_config


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
    directory, metrics = workdir / "checkpoints", workdir / "metrics.jsonl"
    restored = None
    if directory.is_dir():
        checkpoints = Checkpoints(directory, read_only=True)
        try:
            rows = read_metrics(metrics) if metrics.exists() else []
            best = best_step(rows, config, checkpoints.steps())
            restored = checkpoints.restore(setup.abstract, best)
        finally:
            checkpoints.close()
    if restored is None:
        raise UserError(f"{workdir} holds no sound checkpoint: train it first")
    state, beside = restored
    check_log(setup.log, beside, workdir)
    return setup, state


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
