"""From raw values to ids at the moment of a request: what preparation made of a log, made again."""

from __future__ import annotations

import contextlib
import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from suan_jax.data.block import Log
from suan_jax.data.blocking import Scale
from suan_jax.data.raw_log import LARGEST
from suan_jax.data.store import Store
from suan_jax.data.vocabulary import Buckets, Encoder, HashedIds
from suan_jax.errors import UserError, shown
from suan_jax.schema import OOV, PAD


@dataclasses.dataclass(frozen=True)
class VocabularyLookup:
    """A vocabulary in memory, for a few values at a time; all others read `OOV`.

    Attributes:
      ids: raw value, as text, to its id.
    """

    ids: Mapping[str, int]

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self.ids) + OOV + 1

    def describe(self) -> dict:
        """As of `Vocabulary`."""
        return {"kind": "vocabulary"}

    def encode(self, values: pl.Series) -> np.ndarray:
        """Ids of texts, (n,) int32; `PAD` where null."""
        ids = (PAD if value is None else self.ids.get(value, OOV) for value in values.to_list())
        return np.fromiter(ids, np.int32, len(values))


@dataclasses.dataclass(frozen=True)
class IdentityEncoder:
    """The ids of a log that keeps no raw values, such as a generated one; those out of range read `OOV`.

    Attributes:
      size: number of ids.
    """

    size: int

    def describe(self) -> dict:
        """Its kind and its number of ids."""
        return {"kind": "ids", "ids": self.size}

    def encode(self, values: pl.Series) -> np.ndarray:
        """The ids themselves, (n,) int32; `PAD` where null."""
        ids = values.to_numpy()  # where one is null, floats with NaN
        others = np.where(np.isnan(ids), PAD, OOV)
        return np.where((ids >= PAD) & (ids < self.size), ids, others).astype(np.int32)


NO_SCALE = Scale(0.0, 1.0, False)


def log_encoders(log: Log) -> tuple[dict[str, Encoder], dict[str, Scale]]:
    """The encoder of each table of a log, and the scale of each dense column."""
    extra: Mapping[str, Any] = log.extra if isinstance(log, Store) else {}
    encoders: dict[str, Encoder] = {}
    for name, size in log.schema.tables.items():
        description = extra.get("tables", {}).get(name, {"kind": "ids", "ids": size})
        ids = {}
        if isinstance(log, Store) and name in log.vocabularies:
            frame = log.vocabulary(name)
            description, ids = {"kind": "vocabulary"}, dict(zip(frame["raw"], frame["id"], strict=True))
        encoders[name] = make_encoder(name, description, ids)
    scales = {name: Scale(**values) for name, values in extra.get("dense", {}).items()}
    return encoders, {name: scales.get(name, NO_SCALE) for name in log.schema.dense}


def make_encoder(table: str, description: Mapping[str, Any], ids: Mapping[str, int]) -> Encoder:
    """The encoder that describes itself so.

    Args:
      table: its name.
      description: what its `describe` returns.
      ids: of a vocabulary, raw value to id.
    """
    match description["kind"]:
        case "vocabulary":
            return VocabularyLookup(ids)
        case "hashed":
            return HashedIds(table, description["ids"])
        case "buckets":
            return Buckets(np.array(description["edges"], np.float64))
        case kind:
            assert kind == "ids", kind
            return IdentityEncoder(description["ids"])


def raw_series(encoder: Encoder | None, values: list[Any], several: bool, where: str) -> pl.Series:
    """Raw values of a feature as the column that its encoder takes.

    Args:
      encoder: the encoder; None for a dense column.
      values: one for each row, None or "" where missing; integers and texts that look alike are the same.
      several: whether each is a list of values, of which those that are missing are left out.
      where: how to name the feature in a complaint.

    Raises:
      UserError: if a value is of another kind.
    """
    if encoder is None or isinstance(encoder, Buckets):
        plain, dtype = _number, pl.Float64()
    elif isinstance(encoder, IdentityEncoder):
        plain, dtype = _integer, pl.Int64()
    else:
        plain, dtype = _text, pl.String()

    def column(items: list[Any]) -> list[Any]:
        # As preparation reads an empty text, in a column of its own and in a list.
        return [None if isinstance(item, str) and not item else plain(item, where) for item in items]

    if not several:
        return pl.Series(column(values), dtype=dtype)
    for value in values:
        if value is not None and not isinstance(value, list | tuple):
            raise UserError(f"{where} is {shown(value)}, expected a list of values")
    lists = [value and column(value) for value in values]
    return pl.Series(lists, dtype=pl.List(dtype))


def _text(value: Any, where: str) -> str | None:
    if value is None or (isinstance(value, numbers.Real) and value != value):
        return None
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, str | numbers.Real):
        with contextlib.suppress(ValueError):  # half of a surrogate pair, or thousands of digits
            return str(value).encode().decode()
    raise UserError(f"{where} is {shown(value)}, expected a text in UTF-8 or a number")


def _number(value: Any, where: str) -> float | None:
    if value is None or (isinstance(value, numbers.Real) and value != value):
        return None
    if isinstance(value, numbers.Real) and abs(value) <= LARGEST:
        return float(value)
    raise UserError(f"{where} is {shown(value)}, expected a number of at most {LARGEST:.0e}")


def _integer(value: Any, where: str) -> int | None:
    if value is None or (type(value) is int and abs(value) < 2**63):
        return value
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and abs(value) < 2**63:
        return int(value)
    raise UserError(f"{where} is {shown(value)}, expected an id, an integer")
