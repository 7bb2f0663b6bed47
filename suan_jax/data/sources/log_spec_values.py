"""Whether a log's spec holds values of the right kind and size, before they are held against each other."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

from suan_jax.config_check import field_types, fits, type_name
from suan_jax.data.sources.log_spec import TIME_UNITS, LogSpec
from suan_jax.errors import UserError
from suan_jax.schema import GROUPS

_COUNT = (lambda value: value > 0, "a positive number")
_IDS = 2**31  # ids are int32
# By the name of a field, wherever in the spec it stands.
_LIMITS = {
    "test_share": (lambda value: 0 <= value < 1, "a share in [0, 1)"),
    "validation_share": (lambda value: 0 <= value < 1, "a share in [0, 1)"),
    "min_count": _COUNT,
    "values": _COUNT,
    "buckets": _COUNT,
    "per_positive": _COUNT,
    "ids": (lambda value: 3 <= value < _IDS, f"at least 3, as two are reserved, and below {_IDS}"),
    "days": (lambda value: 0 < value < math.inf, "a positive number"),
    "seed": (lambda value: value >= 0, "a number that is not negative"),
    "separator": (lambda value: value != "", "at least one character"),
}
# Preparation's own columns start with an underscore, a vocabulary is a file of its table's name, and Polars
# takes ^ and * for patterns.
_NAME = re.compile(r"[^_^*/][^/]*")


def check_values(spec: LogSpec) -> None:
    """Checks the type and the range of every field by itself.

    Raises:
      UserError: naming the first field that is wrong, its value, and what was expected.
    """
    for name, value, kind in _fields(spec, ""):
        field = name.rpartition(".")[2]
        if not fits(value, kind):
            expected = "a tuple of columns, such as (Categorical(name=...),)" if field in GROUPS else None
            _refuse(name, value, expected or type_name(kind).replace("suan_jax.data.sources.log_spec.", ""))
        holds, expected = _LIMITS.get(field, (lambda value: True, ""))
        if value is not None and not holds(value):
            _refuse(name, value, expected)
    for group in GROUPS:
        for column in spec.group(group):
            for text in (column.name, getattr(column, "table", None) or column.name):
                if not _NAME.fullmatch(text):
                    _refuse(f"a name in {group}", text, "one without / that starts with none of _, ^ and *")
    units = (*TIME_UNITS, "datetime")
    named = [("time_unit", spec.time_unit, units), ("history_of", spec.history_of, ("all", "clicked"))]
    if spec.events is not None and spec.events.time_unit is not None:
        named.append(("events.time_unit", spec.events.time_unit, units))
    if spec.negatives is not None:
        named.append(("negatives.kind", spec.negatives.kind, ("uniform", "popularity", "recent")))
    for field, value, known in named:
        if value not in known:
            _refuse(field, value, f"one of {', '.join(known)}")


def _fields(part: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, value and type of every field, the spec's own before those of what it holds."""
    kinds = field_types(type(part))
    for name, kind in kinds.items():
        yield f"{prefix}{name}", getattr(part, name), kind
    for name in kinds:
        value = getattr(part, name)
        for inner in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(inner):
                called = f"{name} {inner.name}" if isinstance(value, tuple) else name
                yield from _fields(inner, f"{prefix}{called}.")


def _refuse(name: str, value: Any, expected: str) -> None:
    raise UserError(f"spec: {name} is {value!r}, expected {expected}")
