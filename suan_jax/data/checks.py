"""What must hold of a block: the checks that every store is written through, and ids as they are read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from suan_jax.data.block import Block
from suan_jax.errors import UserError
from suan_jax.schema import SPLITS, Feature, Schema

_GROUPS = {"event": "history", "candidate": "candidate", "profile": "profile", "context": "context"}


def check_ids(schema: Schema, block: Block, place: str) -> None:
    """Checks that every id indexes its vocabulary: on a device, one beyond it would be clamped silently.

    Groups without any column, such as the events of impressions read alone, pass.

    Raises:
      UserError: naming `place`, the feature, the id and the size of its vocabulary.
    """
    for field, group in _GROUPS.items():
        columns = getattr(block, field)
        for feature in schema.group(group):
            ids = columns.get(feature.name)
            if ids is None or not ids.size:
                continue
            size = schema.tables[feature.table]
            low, high = (0 if ids.dtype.kind == "u" else int(ids.min())), int(ids.max())
            if low < 0 or high >= size:
                raise UserError(
                    f"{place}: {group} feature {feature.name!r} has the id {low if low < 0 else high}, "
                    f"expected 0 to {size - 1}, the ids of its vocabulary {feature.table!r}"
                )


def check_block(schema: Schema, block: Block, place: str) -> None:
    """Checks everything that the docstring of `Block` promises.

    Raises:
      UserError: one sentence that names `place`, the column and what was expected.
    """

    def expect(holds: bool | np.bool_, what: str) -> None:
        if not holds:
            raise UserError(f"{place}: expected {what}")

    sequences, events, impressions = len(block.user), len(block.event_time), len(block.time)
    expect(sequences > 0, "at least one sequence")
    expect(block.rank.shape == (sequences,), "one rank per sequence")
    expect(block.rank[0] >= 0 and block.rank[-1] < 1, "ranks in [0, 1)")
    expect(np.all(np.diff(block.rank) >= 0), "ranks in ascending order")
    for name, total in (("event", events), ("impression", impressions)):
        offsets = getattr(block, f"{name}_offsets")
        expect(
            offsets.shape == (sequences + 1,)
            and offsets[0] == 0
            and offsets[-1] == total
            and np.all(np.diff(offsets) >= 0),
            f"{name}_offsets to ascend from 0 to {total}, one more than there are sequences",
        )
    rows = {"event": events, "candidate": impressions, "context": impressions, "profile": sequences}
    for field, count in rows.items():
        _check_columns(schema.group(_GROUPS[field]), getattr(block, field), count, f"{place}: {field}")
    check_ids(schema, block, place)
    for name in ("label", "split", "visible"):
        expect(getattr(block, name).shape == (impressions,), f"one {name} per impression")
    expect(block.event_timed.shape == (events,), "one event_timed per event")
    expect(np.all(block.label <= 1) and np.all(block.label >= 0), "labels of 0 or 1")
    expect(np.all(block.split < len(SPLITS)), f"splits below {len(SPLITS)}")
    expect(block.dense.shape == (impressions, len(schema.dense)), f"{len(schema.dense)} dense columns")
    expect(np.all(np.isfinite(block.dense)), "finite dense features")
    for name, logits in block.truth.items():
        expect(logits.shape == (impressions,), f"one truth {name!r} per impression")
    _check_time(block, expect)


def _check_columns(features: tuple[Feature, ...], columns: dict, count: int, place: str) -> None:
    names = [feature.name for feature in features]
    if sorted(columns) != sorted(names):
        raise UserError(f"{place} has the features {sorted(columns)}, expected {sorted(names)}")
    for feature in features:
        shape = (count,) if feature.values == 1 else (count, feature.values)
        got = columns[feature.name].shape
        if got != shape:
            raise UserError(f"{place} feature {feature.name!r} has the shape {got}, expected {shape}")


def _check_time(block: Block, expect: Callable[[bool | np.bool_, str], None]) -> None:
    """Order in time, and that no impression sees an event at or after its own time."""
    sequence_of_event = np.repeat(np.arange(len(block.user)), np.diff(block.event_offsets))
    sequence = np.repeat(np.arange(len(block.user)), np.diff(block.impression_offsets))
    for name, time, owner in (
        ("events", block.event_time[block.event_timed], sequence_of_event[block.event_timed]),
        ("impressions", block.time, sequence),
    ):
        expect(np.all((np.diff(time) >= 0) | (np.diff(owner) > 0)), f"{name} of a sequence in time order")
    start = block.event_offsets[sequence]
    available = np.diff(block.event_offsets)[sequence]
    expect(
        np.all((block.visible >= 0) & (block.visible <= available)),
        "visible from 0 to the number of the sequence's events",
    )
    # Events without a time carry no evidence, so the last timed one among those visible decides.
    last_timed = np.maximum.accumulate(np.where(block.event_timed, np.arange(len(block.event_time)), -1))
    seeing = block.visible > 0
    last = last_timed[start[seeing] + block.visible[seeing] - 1]
    known = last >= start[seeing]
    expect(
        np.all(block.event_time[last[known]] < block.time[seeing][known]),
        "visible to count only events strictly before the impression",
    )
