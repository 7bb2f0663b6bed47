"""Whether a config's values make sense: types first, then ranges, each complaint naming the field."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from suan_jax.config import Config, DataConfig
from suan_jax.errors import UserError, nearest
from suan_jax.schema import SPLITS

PACKINGS = ("none", "request", "time")
_POSITIVE = (
    "data.max_len data.candidates data.window data.threads data.synthetic.users data.synthetic.events "
    "data.synthetic.impressions data.synthetic.items model.embedding_width train.batch_size "
    "train.eval_batch_size train.log_every checkpoint.every checkpoint.keep "
    "optimizer.embedding_initial_accumulator optimizer.hidden_rate"
).split()
_NOT_NEGATIVE = (
    "data.synthetic.seed model.grade optimizer.learning_rate optimizer.weight_decay "
    "optimizer.clip optimizer.embedding_learning_rate optimizer.embedding_init train.steps train.seed "
    "train.eval_every"
).split()
_SHARES = ("data.train_fraction", "data.negative_rate")
_CHOICES = {
    "data.train_on": ("train", "train+validation"),
    "data.fraction_by": ("user", "time"),
    "data.packing": PACKINGS,
    "model.dtype": ("float32", "bfloat16"),
    "optimizer.embedding_dtype": ("float32", "bfloat16"),
    "optimizer.schedule": ("constant", "cosine", "linear"),
    "train.eval_split": SPLITS,
    "train.final_split": SPLITS,
    "checkpoint.best": ("", "auc", "gauc", "log_loss"),
}


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """A dataclass's fields and their types, with annotations resolved."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, value and type of every field that is not itself a dataclass with fields."""
    for name, kind in field_types(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, kind


def check_names(config: Config, names: Iterable[str]) -> None:
    """Checks that dotted names are fields of a config.

    Raises:
      UserError: if one is no field, naming the nearest, or a group of fields.
    """
    known = [name for name, _, _ in leaves(config)]
    for name in names:
        inside = [field for field in known if field.startswith(f"{name}.")]
        if inside:
            raise UserError(
                f"config.{name} is a group of fields: set one of them, such as config.{inside[0]}"
            )
        if name not in known:
            raise UserError(f"config.{name} is not a field, the nearest is config.{nearest(name, known)}")


def type_name(kind: Any) -> str:
    """A type as one writes it: int, tuple[int, ...], int | None."""
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def fits(value: Any, kind: Any) -> bool:
    """Whether a field of type `kind` may hold `value`; an int is a float, a bool is no number."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in args)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(args) == 2 and args[1] is Ellipsis:
            return all(fits(item, args[0]) for item in value)
        return len(value) == len(args) and all(map(fits, value, args))
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, origin or kind)


def validate(config: Config) -> None:
    """Checks every value of a config that can be checked without the log and the devices.

    Raises:
      UserError: naming the first field that is wrong, its value, and what was expected.
    """
    values = {}
    for name, value, kind in leaves(config):
        if not fits(value, kind):
            _refuse(name, value, type_name(kind))
        values[name] = value

    def check(names: Iterable[str], holds: Callable[[Any], bool], expected: str) -> None:
        for name in names:
            if not holds(values[name]):
                _refuse(name, values[name], expected)

    check(_POSITIVE, lambda value: 0 < value < math.inf, "a positive number")
    check(_NOT_NEGATIVE, lambda value: 0 <= value < math.inf, "a number that is not negative")
    check(_SHARES, lambda value: 0 < value <= 1, "a share in (0, 1]")
    below_one = ("model.batch_norm_momentum", "optimizer.warmup")
    check(below_one, lambda value: 0 <= value < 1, "a share in [0, 1)")
    check(["model.head"], lambda widths: all(width > 0 for width in widths), "positive widths")
    check(["mesh.data", "mesh.model"], lambda size: size == -1 or size > 0, "a positive number or -1")
    for name, known in _CHOICES.items():
        check([name], known.__contains__, "one of " + ", ".join(map(repr, known)))
    if not config.train.steps:
        check(["train.epochs"], lambda value: 0 < value < math.inf, "a positive number, as train.steps is 0")
    check_packing(config.data)
    if config.train.batch_size % config.data.candidates:
        multiple = f"a multiple of config.data.candidates, {config.data.candidates}"
        _refuse("train.batch_size", config.train.batch_size, multiple)
    if config.checkpoint.best and not config.train.eval_every:
        _refuse("train.eval_every", 0, f"a positive number, as checkpoint.best is {config.checkpoint.best!r}")
    if config.checkpoint.best and config.train.eval_split == "test":
        _refuse("train.eval_split", "test", "'validation', as checkpoint.best would choose by the test split")
    if config.mesh.data == config.mesh.model == -1:
        _refuse("mesh.model", -1, "a positive number, as mesh.data is -1 already")
    for pattern, _ in config.optimizer.multipliers:
        try:
            re.compile(pattern)
        except re.error as error:
            _refuse("optimizer.multipliers", pattern, f"a regular expression ({error})")


def check_packing(data: DataConfig) -> None:
    """Checks the settings of packing against each other.

    Raises:
      UserError: naming the field that is wrong.
    """
    if data.packing not in PACKINGS:
        _refuse("data.packing", data.packing, "one of " + ", ".join(map(repr, PACKINGS)))
    if data.packing == "none" and data.candidates != 1:
        _refuse("data.candidates", data.candidates, "1, as config.data.packing is 'none'")
    if data.packing != "none" and data.candidates < 2:
        _refuse("data.candidates", data.candidates, f"at least 2, as config.data.packing is {data.packing!r}")
    if not 0 <= data.least_history <= 1:
        _refuse("data.least_history", data.least_history, "a share in [0, 1]")


def _refuse(name: str, value: Any, expected: str) -> typing.NoReturn:
    raise UserError(f"config.{name} is {value!r}, expected {expected}")
