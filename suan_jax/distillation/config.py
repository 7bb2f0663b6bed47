"""What a distillation is: a training run of the student, and what teaches it."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from suan_jax.config import Config, ModelConfig, OptimizerConfig
from suan_jax.config_check import validate
from suan_jax.errors import UserError

# Apart from the student's: two equal models of one seed would stay equal, and teach each other nothing.
_TEACHER_SEED = 1_000_000
_MOST = 1000.0  # of weight and temperature, as float32 loses the gradient, t (σ(z_S / t) - σ(z_T / t)), above


@dataclasses.dataclass
class DistillationConfig:
    """The teacher, and how much it counts. The papers give neither weight nor temperature.

    Attributes:
      online: whether the teacher trains along with the student; else it has been trained before.
      teacher: the model that trains along; read online, as offline the work directory says.
      max_len: longest history that this teacher sees; 0 for the student's.
      teacher_from: work directory of the teacher that was trained before, as --teacher gives it.
      rate_factor: peak learning rate of this teacher's dense parameters, against the student's: a wider model
        wants a lower one.
      dtype: dtype of the teacher's activations; empty for what its own config says.
      weight: λ, how much the teacher's term counts beside the labels'.
      temperature: t, what both logits are divided by in that term.
    """

    online: bool = False
    teacher: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    max_len: int = 0
    rate_factor: float = 1.0
    teacher_from: str = ""
    dtype: str = ""
    weight: float = 1.0
    temperature: float = 2.0


@dataclasses.dataclass
class DistillConfig(Config):
    """A distillation: the fields of a training run are the student's.

    Attributes:
      distillation: what teaches it, and how.
    """

    job: ClassVar[str] = "launch/distill.py"
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)


def teacher_config(config: DistillConfig) -> Config:
    """An online teacher's run: the student's data, batches, steps and optimizer, but for `rate_factor`."""
    distillation = config.distillation
    teacher = distillation.teacher
    return Config(
        model=dataclasses.replace(teacher, dtype=distillation.dtype or teacher.dtype),
        data=dataclasses.replace(config.data, max_len=distillation.max_len or config.data.max_len),
        optimizer=_scaled(config.optimizer, distillation.rate_factor),
        train=dataclasses.replace(config.train, seed=config.train.seed + _TEACHER_SEED),
        checkpoint=config.checkpoint,
        mesh=config.mesh,
    )


def _scaled(optimizer: OptimizerConfig, factor: float) -> OptimizerConfig:
    """The same on one schedule, with every learning rate of dense parameters times `factor`."""
    if factor == 1:
        return optimizer
    given = tuple((pattern, scale * factor) for pattern, scale in optimizer.multipliers)
    return dataclasses.replace(optimizer, multipliers=(*given, ("", factor)))


def check_distillation(config: DistillConfig) -> None:
    """Checks a config, as `validate` does, and what that does not know of.

    Raises:
      UserError: naming the field that is wrong, its value, and what was expected.
    """
    validate(config)
    given = config.distillation

    def check(name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UserError(f"config.distillation.{name} is {getattr(given, name)!r}, expected {expected}")

    if config.data.packing != "none":
        raise UserError(
            f"config.data.packing is {config.data.packing!r}, expected 'none', as student and teacher, whose "
            "lengths may differ, are given one example a row"
        )
    check("weight", 0 <= given.weight <= _MOST, f"0 to {_MOST:g}")
    check("temperature", 1 / _MOST <= given.temperature <= _MOST, f"{1 / _MOST:g} to {_MOST:g}")
    check("dtype", given.dtype in ("", "float32", "bfloat16"), "'float32', 'bfloat16' or ''")
    check("rate_factor", 0 < given.rate_factor < math.inf, "a positive number")
    check("max_len", given.max_len >= 0, "0 or a positive number")
    if given.online:
        check("teacher_from", not given.teacher_from, "no --teacher, as config.distillation.online is True")
        try:
            validate(teacher_config(config))
        except UserError as error:
            raise UserError(f"the teacher of config.distillation: {error}") from error
    elif not given.teacher_from:
        raise UserError(
            "--teacher=WORKDIR is missing: give the teacher's work directory, or "
            "--config.distillation.online=True to train config.distillation.teacher along"
        )
