"""Writes consecutive blocks as shards, wherever that is done, with the figures that a store keeps."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from suan_jax.data.block import Block
from suan_jax.data.checks import check_block
from suan_jax.data.encoding import encode_block
from suan_jax.errors import UserError
from suan_jax.schema import SPLITS, Schema

SHARD_BYTES = 256 << 20  # before compression


@dataclasses.dataclass
class Written:
    """What consecutive blocks left behind.

    Attributes:
      shards: files of the blocks.
      records: per shard, the CRC-32 of its records.
      ranks: per block, its first and its last rank.
      counts: split to the impressions of each block.
      totals: split to impressions, clicks and sequences.
      times: split to the first and the last second, empty without impressions.
      sequences: sequences of all blocks.
      events: events of all blocks.
    """

    shards: list[Path] = dataclasses.field(default_factory=list)
    records: list[list[int]] = dataclasses.field(default_factory=list)
    ranks: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    counts: dict[str, list[int]] = dataclasses.field(default_factory=lambda: {split: [] for split in SPLITS})
    totals: dict[str, dict[str, int]] = dataclasses.field(
        default_factory=lambda: {
            split: dict.fromkeys(("impressions", "clicks", "sequences"), 0) for split in SPLITS
        }
    )
    times: dict[str, list[int]] = dataclasses.field(default_factory=lambda: {split: [] for split in SPLITS})
    sequences: int = 0
    events: int = 0

    def add(self, block: Block) -> None:
        """Counts a block."""
        self.ranks.append((float(block.rank[0]), float(block.rank[-1])))
        self.sequences += len(block.user)
        self.events += len(block.event_time)
        sequence = np.repeat(np.arange(len(block.user)), np.diff(block.impression_offsets))
        for index, split in enumerate(SPLITS):
            chosen = block.split == index
            count = int(chosen.sum())
            self.counts[split].append(count)
            if count:
                self.totals[split]["impressions"] += count
                self.totals[split]["clicks"] += int(block.label[chosen].sum())
                self.totals[split]["sequences"] += len(np.unique(sequence[chosen]))
                times = (*self.times[split], int(block.time[chosen].min()), int(block.time[chosen].max()))
                self.times[split] = [min(times), max(times)]

    def check_follows(self, rank: float, place: str) -> None:
        """Checks that a block whose first rank is `rank` may come next; `place` says which, for errors.

        Raises:
          UserError: if its ranks do not follow.
        """
        if self.ranks and rank < self.ranks[-1][1]:
            raise UserError(f"{place}: expected ranks from {self.ranks[-1][1]} on, got {rank}")

    def append(self, other: Written, place: str) -> None:
        """Takes in what the blocks that follow left, those of `place`.

        Raises:
          UserError: if their ranks do not follow.
        """
        if other.ranks:
            self.check_follows(other.ranks[0][0], place)
        self.shards += other.shards
        self.records += other.records
        self.ranks += other.ranks
        self.sequences += other.sequences
        self.events += other.events
        for split in SPLITS:
            self.counts[split] += other.counts[split]
            for name, total in other.totals[split].items():
                self.totals[split][name] += total
            times = (*self.times[split], *other.times[split])
            self.times[split] = [min(times), max(times)] if times else []


class ShardWriter:
    """Writes blocks into files of a folder.

    Attributes:
      written: what they left so far; whole after `end_shard`.
    """

    def __init__(self, folder: Path, name: str, schema: Schema, source: str, shard_bytes: int = SHARD_BYTES):
        """A writer that has made nothing yet.

        Args:
          folder: where the shards go, under any names that begin with `name`.
          name: that beginning.
          schema: what the blocks hold.
          source: name of the source, for errors.
          shard_bytes: a shard is closed once it holds as many, before compression.
        """
        self.written = Written()
        self._folder, self._name, self._schema, self._source = folder, name, schema, source
        self._shard_bytes, self._shard_size = shard_bytes, 0
        self._shard: ArrayRecordWriter | None = None

    def write(self, block: Block) -> None:
        """Appends a block.

        Raises:
          UserError: if it breaks a promise of `Block`, or its ranks do not follow the last block's.
        """
        written = self.written
        place = f"block {len(written.ranks)} of {self._source}"
        check_block(self._schema, block, place)
        written.check_follows(float(block.rank[0]), place)
        if self._shard is None:
            file = self._folder / f"{self._name}-{len(written.shards):05d}.partial"
            self._shard = ArrayRecordWriter(str(file), "group_size:1,zstd:1")
            self._shard_size = 0
            written.shards.append(file)
            written.records.append([])
        for record in encode_block(self._schema, block):
            self._shard.write(record)
            written.records[-1].append(zlib.crc32(record))
            self._shard_size += len(record)
        if self._shard_size >= self._shard_bytes:
            self.end_shard()
        written.add(block)

    def end_shard(self) -> None:
        """Closes the shard, if one is open; the next block begins another."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None
