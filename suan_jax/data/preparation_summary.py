"""What a preparation found: counts, splits, vocabularies."""

from __future__ import annotations

import dataclasses
import datetime

import numpy as np
from rich.console import Console

from suan_jax.data.block import Block
from suan_jax.schema import GROUPS, OOV, PAD, SPLITS, Schema
from suan_jax.table import print_table

_BLOCK_COLUMN = {"history": "event"}  # a block names this group otherwise


@dataclasses.dataclass
class Split:
    """Impressions of one split: how many, how many clicked, and the first and last second."""

    impressions: int = 0
    clicks: int = 0
    first: int | None = None
    last: int | None = None

    def add(self, time: np.ndarray, label: np.ndarray) -> None:
        """Takes in some impressions."""
        if len(time):
            self.merge(Split(len(time), int(label.sum()), int(time.min()), int(time.max())))

    def merge(self, other: Split) -> None:
        """Takes in other impressions."""
        self.impressions += other.impressions
        self.clicks += other.clicks
        moments = [m for m in (self.first, self.last, other.first, other.last) if m is not None]
        if moments:
            self.first, self.last = min(moments), max(moments)


@dataclasses.dataclass
class Summary:
    """Running totals over the blocks of a log.

    Attributes:
      schema: the log's schema.
      notes: further counts, from the source.
      users: users with at least one impression.
      sequences: their sequences of events; more than users where impressions bring their own histories.
      events: events of these sequences.
      untimed: events whose time is unknown.
      splits: name to totals of the split.
      values: table to how many values were read through it, missing ones excluded.
      unknown: table to how many of these were out of vocabulary.
    """

    schema: Schema
    notes: dict[str, int] = dataclasses.field(default_factory=dict)
    users: int = 0
    sequences: int = 0
    events: int = 0
    untimed: int = 0
    splits: dict[str, Split] = dataclasses.field(default_factory=lambda: {name: Split() for name in SPLITS})
    values: dict[str, int] = dataclasses.field(default_factory=dict)
    unknown: dict[str, int] = dataclasses.field(default_factory=dict)
    _last_user: int = dataclasses.field(default=-1, repr=False, compare=False)

    @property
    def impressions(self) -> int:
        """Impressions of all splits."""
        return sum(split.impressions for split in self.splits.values())

    def add(self, block: Block) -> None:
        """Takes in a block; blocks come in the order of their users."""
        self.users += int(np.count_nonzero(np.diff(block.user, prepend=self._last_user)))
        self._last_user = int(block.user[-1])
        self.sequences += len(block.user)
        self.events += len(block.event_time)
        self.untimed += int((~block.event_timed).sum())
        for index, name in enumerate(SPLITS):
            rows = block.split == index
            self.splits[name].add(block.time[rows], block.label[rows])
        for group in GROUPS:
            columns = getattr(block, _BLOCK_COLUMN.get(group, group))
            for feature in self.schema.group(group):
                ids = columns[feature.name]
                table = feature.table
                self.values[table] = self.values.get(table, 0) + int((ids != PAD).sum())
                self.unknown[table] = self.unknown.get(table, 0) + int((ids == OOV).sum())

    def merge(self, other: Summary) -> None:
        """Takes in what was found of other users; `notes` stay."""
        for name in ("users", "sequences", "events", "untimed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, split in other.splits.items():
            self.splits[name].merge(split)
        for mine, theirs in ((self.values, other.values), (self.unknown, other.unknown)):
            for table, count in theirs.items():
                mine[table] = mine.get(table, 0) + count

    def print(self, console: Console | None = None) -> None:
        """Three tables: counts, splits, vocabularies."""
        counts = {
            "impressions": self.impressions,
            "users": self.users,
            "histories": self.sequences,
            "events": self.events,
            "events without a time": self.untimed,
            **self.notes,
        }
        print_table("Counts", ("what", "number"), counts.items(), console)
        splits = [
            (name, split.impressions, _moment(split.first), _moment(split.last), _rate(split))
            for name, split in self.splits.items()
        ]
        columns = ("split", "impressions", "first (UTC)", "last (UTC)", "click rate")
        print_table("Splits", columns, splits, console)
        tables = [
            (name, size, self.unknown.get(name, 0) / max(self.values.get(name, 0), 1))
            for name, size in self.schema.tables.items()
        ]
        print_table("Vocabularies", ("table", "ids", "share out of vocabulary"), tables, console)


def _moment(seconds: int | None) -> str | None:
    if not seconds:  # 0 throughout a log without a clock
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _rate(split: Split) -> float | None:
    return split.clicks / split.impressions if split.impressions else None
