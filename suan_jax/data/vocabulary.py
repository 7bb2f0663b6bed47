"""From raw values to ids: vocabularies, hashed ids and quantile buckets."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Protocol

import numpy as np
import polars as pl

from suan_jax.schema import OOV, PAD

_FIRST = OOV + 1  # the id of the most frequent value
_MANTISSA = 53  # bits of a float64 that are exact in [0, 1)


def stable_hash(values: pl.Series, salt: str) -> np.ndarray:
    """64 bits of BLAKE2b over the text of each value, (n,) uint64, nulls as the empty text.

    The same on every machine and in every version, unlike the hashes of Polars and of Python. A call costs
    a microsecond, so give distinct values. The salt keeps hashes for different ends independent.
    """
    texts = values.cast(pl.String).fill_null("")
    prefix = f"{salt}\0".encode()
    digests = b"".join(hashlib.blake2b(prefix + text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def user_rank(users: pl.Series) -> np.ndarray:
    """A stable hash of raw user ids to [0, 1), (n,) float64."""
    return (stable_hash(users, "user") >> np.uint64(64 - _MANTISSA)) * 2.0**-_MANTISSA


def canonical(dtype: pl.DataType) -> pl.DataType:
    """The type in which raw values of a column are compared: int64 for integers, text for the rest."""
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    return pl.Int64() if inner.is_integer() else pl.String()


class Encoder(Protocol):
    """Maps raw values to ids."""

    size: int

    def describe(self) -> dict:
        """A JSON-ready record, from which, with a vocabulary's own file, the encoder can be made again."""
        ...

    def encode(self, values: pl.Series) -> np.ndarray:
        """Ids of raw values, (n,) int32; `PAD` where null."""
        ...


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Distinct values, the most frequent first; all others read `OOV`.

    Attributes:
      frame: columns `value`, `id` and `count`.
    """

    frame: pl.DataFrame

    @classmethod
    def build(cls, counts: pl.DataFrame, min_count: int) -> Vocabulary:
        """From distinct `value`s and their `count`s; equal counts go by value."""
        kept = counts.filter(pl.col("count") >= min_count).sort("count", "value", descending=[True, False])
        ids = pl.Series("id", np.arange(_FIRST, _FIRST + kept.height, dtype=np.int32))
        return cls(kept.with_columns(ids).select("value", "id", "count"))

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.frame.height + _FIRST

    def describe(self) -> dict:
        """Its kind; the values are a file of their own."""
        return {"kind": "vocabulary"}

    def encode(self, values: pl.Series) -> np.ndarray:
        """Ids of raw values, (n,) int32; `PAD` where null."""
        raw = pl.DataFrame({"value": values.cast(self.frame.schema["value"])})
        ids = raw.join(self.frame.select("value", "id"), on="value", how="left", maintain_order="left")["id"]
        return np.where(values.is_null().to_numpy(), PAD, ids.fill_null(OOV).to_numpy()).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class HashedIds:
    """Values hashed into a fixed number of ids; collisions share a row, and none is out of vocabulary.

    Attributes:
      table: name of the table, the salt of its hash.
      size: number of ids, `PAD` and `OOV` included.
    """

    table: str
    size: int

    def describe(self) -> dict:
        """Its kind and its number of ids."""
        return {"kind": "hashed", "ids": self.size}

    def encode(self, values: pl.Series) -> np.ndarray:
        """Ids of raw values, (n,) int32; `PAD` where null."""
        texts = values.cast(canonical(values.dtype)).cast(pl.String)
        distinct = texts.drop_nulls().unique()
        ids = stable_hash(distinct, self.table) % np.uint64(self.size - _FIRST) + np.uint64(_FIRST)
        known = pl.DataFrame({"value": distinct, "id": ids.astype(np.int32)})
        return Vocabulary(known).encode(texts)


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Numbers cut at the quantiles of the train period.

    Attributes:
      edges: (buckets - 1,) float64, ascending; a value equal to an edge lies above it.
    """

    edges: np.ndarray

    @classmethod
    def build(cls, counts: pl.DataFrame, buckets: int) -> Buckets:
        """From distinct `value`s and their `count`s; quantiles that coincide become one edge."""
        ordered = counts.sort("value")
        values, cumulative = ordered["value"].to_numpy(), ordered["count"].to_numpy().cumsum()
        if not len(values):
            return cls(np.zeros(0))
        targets = np.arange(1, buckets) / buckets * cumulative[-1]
        edges = np.unique(
            values[np.searchsorted(cumulative, targets, side="right").clip(max=len(values) - 1)]
        )
        return cls(edges[edges > values[0]])  # nothing lies below the least value

    @property
    def size(self) -> int:
        """Number of ids."""
        return _FIRST + len(self.edges) + 1

    def describe(self) -> dict:
        """Its kind and its edges."""
        return {"kind": "buckets", "edges": self.edges.tolist()}

    def encode(self, values: pl.Series) -> np.ndarray:
        """Ids of raw numbers, (n,) int32; `PAD` where null."""
        numbers = values.cast(pl.Float64).to_numpy()  # NaN where null
        ids = np.searchsorted(self.edges, numbers, side="right") + _FIRST
        return np.where(values.is_null().to_numpy(), PAD, ids).astype(np.int32)


def encode_column(encoder: Encoder, column: pl.Series, values: int) -> np.ndarray:
    """Ids of a column: (n,) int32, or (n, values) if values > 1, the first of each list, then `PAD`."""
    if values == 1:
        return encoder.encode(column)
    lists = column.list.drop_nulls().list.head(values)
    lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
    flat = encoder.encode(lists.filter(pl.Series(lengths > 0)).explode())
    rows = np.repeat(np.arange(len(lengths)), lengths)
    slots = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    ids = np.full((len(lengths), values), PAD, np.int32)
    ids[rows, slots] = flat
    return ids
