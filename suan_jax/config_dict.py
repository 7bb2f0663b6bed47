"""Configs as plain dictionaries: for JSON, and for saying in what two of them differ."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from suan_jax.config import Config, ModelConfig
from suan_jax.config_check import field_types, leaves
from suan_jax.errors import UserError, nearest
from suan_jax.models import registered

_KIND = "kind"  # beside the fields: the class of a job's config that adds fields to `Config`
_ABSENT = "(absent)"
_PACKAGE = f"{__package__}."
_HINT = "if a config file defines it, give that file as --config=FILE"


def to_dict(config: Config) -> dict[str, Any]:
    """A form that survives JSON: dataclasses become dictionaries, tuples lists."""
    kind = type(config)
    extra = {} if kind is Config else {_KIND: f"{kind.__module__}.{kind.__qualname__}"}
    return {**extra, **_plain(dataclasses.asdict(config))}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def from_dict(data: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict`; fields that `data` lacks take their defaults.

    Raises:
      UserError: if a field, a model or the config's class is not known.
    """
    kind = _config_class(data[_KIND]) if _KIND in data else Config
    return _build(kind, {name: value for name, value in data.items() if name != _KIND}, "config")


def _config_class(path: str) -> type[Config]:
    module, _, name = path.rpartition(".")
    try:
        # A file of data must not have anything else imported, and so run.
        holder = importlib.import_module(module) if module.startswith(_PACKAGE) else sys.modules[module]
        kind = getattr(holder, name)
    except (ImportError, AttributeError, KeyError) as error:
        raise UserError(
            f"config.{_KIND} is {path!r}, expected a config class that is known; {_HINT}"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Config)):
        raise UserError(f"config.{_KIND} is {path!r}, expected a class that derives from Config")
    return kind


def model_class(name: str, field: str) -> type[ModelConfig]:
    """The config class of the model registered as `name`.

    Raises:
      UserError: if there is none; `field` is the dotted field that asked for it.
    """
    known = registered()
    if name not in known:
        raise UserError(
            f"{field} is {name!r}, the nearest model is {nearest(name, known)!r} "
            f"of {', '.join(sorted(known))}; {_HINT}"
        )
    return known[name]


def swapped(model: ModelConfig, kind: type[ModelConfig]) -> ModelConfig:
    """A config of class `kind` with the values that `model` was given, where both have the field.

    A value that `model` has by default is not carried over: `kind` has its own default.
    """
    if type(model) is kind:
        return model
    defaults, types_of = type(model)(), field_types(kind)
    given = {
        name: getattr(model, name)
        for name, field_type in field_types(type(model)).items()
        if name != "name"
        and types_of.get(name) == field_type
        and getattr(model, name) != getattr(defaults, name)
    }
    return kind(**given)


def _build(kind: Any, value: Any, field: str) -> Any:
    """`value`, as JSON has it, as an instance of `kind`; `field` is its dotted name."""
    args = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        options = [option for option in args if option is not type(None)]
        return value if value is None or len(options) > 1 else _build(options[0], value, field)
    if typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)):
        item_kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(_build(*pair, field) for pair in zip(item_kinds, value, strict=True))
    if not (dataclasses.is_dataclass(kind) and isinstance(value, Mapping)):
        return value
    if issubclass(kind, ModelConfig) and value.get("name"):
        kind = model_class(value["name"], f"{field}.name")
    fields = field_types(kind)
    for name in value:
        if name not in fields:
            raise UserError(
                f"{field}.{name} is not a field, the nearest is {field}.{nearest(name, fields)}; "
                "another version may have written it"
            )
    return kind(**{name: _build(fields[name], item, f"{field}.{name}") for name, item in value.items()})


def differences(a: Config, b: Config) -> list[str]:
    """The fields in which two configs differ, as "train.steps: 100 != 200", in the order of the fields.

    Values are compared as they are written: 2 is not 2.0, and NaN is NaN.
    """
    left = {name: repr(value) for name, value, _ in leaves(a)}
    right = {name: repr(value) for name, value, _ in leaves(b)}
    pairs = {name: (left.get(name, _ABSENT), right.get(name, _ABSENT)) for name in {**left, **right}}
    return [f"{name}: {x} != {y}" for name, (x, y) in pairs.items() if x != y]
