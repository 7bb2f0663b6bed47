"""The distillation job: a training run in which a teacher is learnt from too."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from suan_jax.distillation.config import DistillConfig, check_distillation
from suan_jax.distillation.setup import set_up_offline, set_up_online
from suan_jax.paths import path_of
from suan_jax.training.loop import train


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
    teacher = teacher or path_of(config.distillation.teacher_from)
    return train(config, workdir, functools.partial(set_up_offline, workdir=teacher))
