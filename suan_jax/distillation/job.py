"""The distillation job: a training run in which a teacher is learnt from too."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from suan_jax.distillation.config import DistillConfig, check_distillation
from suan_jax.distillation.setup import set_up_offline, set_up_online
from suan_jax.paths import is_remote, path_of
from suan_jax.training.loop import train
from suan_jax.training.workdir import CONFIG, read_config


def distill(config: DistillConfig, workdir: Path, teacher: Path | None = None) -> dict[str, Any]:
    """Trains a student in `workdir`, which is then one of a plain training run of the student.

    Args:
      config: the run.
      workdir: its work directory.
      teacher: where the teacher's work directory lies, if not where `config.distillation.teacher_from` says.

    Returns:
      The summary, as `train`, with the teacher's point.

    Raises:
      UserError: as `train`; or if there is no teacher, or it does not fit the log.
      Preempted: as `train`.
    """
    check_distillation(config)
    if config.distillation.online:
        return train(config, workdir, set_up_online)
    if teacher is None:
        teacher = _place(config)
        config = _with_place(config, workdir, teacher)
    return train(config, workdir, functools.partial(set_up_offline, workdir=teacher))


def _place(config: DistillConfig) -> Path:
    """Where the teacher lies: one path, however it is spelt."""
    path = path_of(config.distillation.teacher_from)
    return path if is_remote(path) else path.resolve()


def _with_place(config: DistillConfig, workdir: Path, teacher: Path) -> DistillConfig:
    """The config with the teacher's path as the run in `workdir` spelt it, or in full."""
    spelt = str(teacher)
    if (workdir / CONFIG).exists():
        begun = read_config(workdir)
        # A run that began with another spelling of this path is this run.
        if isinstance(begun, DistillConfig) and begun.distillation.teacher_from and _place(begun) == teacher:
            spelt = begun.distillation.teacher_from
    return dataclasses.replace(
        config, distillation=dataclasses.replace(config.distillation, teacher_from=spelt)
    )
