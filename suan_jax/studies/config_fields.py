"""Runs of a study as configs: the study's own, with a few fields set."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from suan_jax.config import Config
from suan_jax.config_check import check_names, validate
from suan_jax.config_dict import model_class, swapped
from suan_jax.distillation import DistillConfig
from suan_jax.distillation.config import check_distillation


def with_fields(config: Config, fields: Mapping[str, Any]) -> Config:
    """A training run like `config`, with some dotted fields set, such as {"model.name": "din"}.

    Another model's name takes that model's config, with the values that `config.model` was given where both
    have the field. Fields that a study adds to a run's are left out; a run is a distillation if one of
    `fields` is of `config.distillation`.

    Raises:
      UserError: if a field or a model is not known, or a value is not right.
    """
    distils = isinstance(config, DistillConfig) and any(name.startswith("distillation.") for name in fields)
    kind = DistillConfig if distils else Config
    own = {field.name: getattr(config, field.name) for field in dataclasses.fields(kind)}
    result = kind(**copy.deepcopy(own))
    for name, value in fields.items():
        if name in ("model.name", "distillation.teacher.name"):
            holder, last = _holder(result, name.removesuffix(".name"))
            setattr(holder, last, swapped(getattr(holder, last), model_class(value, f"config.{name}")))
    check_names(result, fields)
    for name, value in fields.items():
        holder, last = _holder(result, name)
        setattr(holder, last, value)
    (check_distillation if distils else validate)(result)
    return result


def _holder(config: Any, name: str) -> tuple[Any, str]:
    """The dataclass that holds a dotted field, and the field's last name."""
    *path, last = name.split(".")
    return functools.reduce(getattr, path, config), last
