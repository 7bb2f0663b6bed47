"""A block as bytes: one record of its impressions and one of its events.

A record is a length (8 bytes), a JSON header that lists the columns, and the columns themselves, raw and
little-endian, each at a multiple of 8 bytes; decoding copies nothing that was stored at its own width.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

import numpy as np

from suan_jax.data.block import Block
from suan_jax.schema import Schema

_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 8
_GROUPS = ("profile", "candidate", "context", "truth", "event")
_IMPRESSION_COLUMNS = {
    "user": np.int64,
    "rank": np.float64,
    "impression_offsets": np.int64,
    "dense": np.float32,
    "time": np.int64,
    "label": np.uint8,
    "split": np.uint8,
    "visible": np.int64,
}
_EVENT_COLUMNS = {"event_offsets": np.int64, "event_time": np.int64, "event_timed": np.bool_}


def encode_block(schema: Schema, block: Block) -> tuple[bytes, bytes]:
    """The records of a block: (impressions, events).

    Ids take the smallest unsigned integers that hold their vocabulary, so they must lie inside it.
    """
    sizes = {
        (group, feature.name): schema.tables[feature.table]
        for group in ("history", "candidate", "profile", "context")
        for feature in schema.group(group)
    }

    def compact(group: str, name: str, ids: np.ndarray) -> np.ndarray:
        return ids.astype(np.min_scalar_type(sizes[group, name] - 1))

    impressions = {name: getattr(block, name).astype(dtype) for name, dtype in _IMPRESSION_COLUMNS.items()}
    for group in ("profile", "candidate", "context"):
        for name, ids in getattr(block, group).items():
            impressions[f"{group}/{name}"] = compact(group, name, ids)
    impressions |= {f"truth/{name}": logits.astype(np.float32) for name, logits in block.truth.items()}
    events = {name: getattr(block, name).astype(dtype) for name, dtype in _EVENT_COLUMNS.items()}
    events |= {f"event/{name}": compact("history", name, ids) for name, ids in block.event.items()}
    return encode(impressions), encode(events)


def decode_block(impressions: bytes, events: bytes | None) -> Block:
    """The inverse of `encode_block`; without the record of events, every sequence has none."""
    columns = decode(impressions)
    if events is not None:
        columns |= decode(events)
    else:
        sequences = len(columns["user"])
        columns["event_offsets"] = np.zeros(sequences + 1, np.int64)
        columns["event_time"] = np.zeros(0, np.int64)
        columns["event_timed"] = np.zeros(0, bool)
    fields: dict = {group: {} for group in _GROUPS}
    for key, column in columns.items():
        group, _, name = key.partition("/")
        if name:
            fields[group][name] = column
        else:
            fields[key] = column
    return Block(**fields)


def encode(columns: Mapping[str, np.ndarray]) -> bytes:
    """Bytes of named columns of booleans, integers or floats, of any shape.

    An int64 column (times, offsets, indices) is stored as unsigned distances from its minimum, as narrow as
    they allow; any other column keeps its dtype.
    """
    header, parts = [], []
    for name, column in columns.items():
        base = 0
        if column.dtype == np.int64:
            base = int(column.min()) if column.size else 0
            # Unsigned subtraction: a span above 2**63 must not overflow.
            distance = column.astype(np.uint64) - np.uint64(base % 2**64)
            stored = distance.astype(np.min_scalar_type(int(distance.max(initial=0))))
        else:
            stored = column
        stored = np.ascontiguousarray(stored, stored.dtype.newbyteorder("<"))
        header.append([name, column.dtype.str, stored.dtype.str, list(stored.shape), base])
        parts.append(stored.tobytes())
    text = json.dumps(header).encode()
    return b"".join(_pad(part) for part in (_LENGTH.pack(len(text)) + text, *parts))


def decode(record: bytes) -> dict[str, np.ndarray]:
    """The inverse of `encode`; the columns are read-only."""
    (length,) = _LENGTH.unpack_from(record)
    position = _LENGTH.size + length
    columns = {}
    for name, dtype, stored_dtype, shape, base in json.loads(record[_LENGTH.size : position]):
        position += -position % _ALIGNMENT
        column = np.ndarray(tuple(shape), stored_dtype, buffer=record, offset=position)
        position += column.nbytes
        if np.dtype(dtype) == np.int64:
            column = column.astype(np.int64)
            column += base
            column.setflags(write=False)
        columns[name] = column
    return columns


def _pad(part: bytes) -> bytes:
    return part + bytes(-len(part) % _ALIGNMENT)
