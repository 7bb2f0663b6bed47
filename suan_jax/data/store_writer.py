"""Writes a store: blocks in, a directory out that exists only once it is whole."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from suan_jax.data.block import Block
from suan_jax.data.shard_writer import SHARD_BYTES, ShardWriter, Written
from suan_jax.data.working_folder import working_folder
from suan_jax.errors import UserError
from suan_jax.schema import Schema

if TYPE_CHECKING:  # polars is needed by preparation alone
    import polars as pl

FORMAT = "suan-store"
VERSION = 1


class StoreWriter:
    """A context manager that writes blocks into a new store.

    Everything goes to a hidden sibling of `path`, which is renamed to `path` when the `with` block ends
    cleanly and removed when it raises; what a kill leaves of it, the next writer to `path` removes. A store
    is

      schema.json           format, version, source, schema, shards, counts and ranks per block, statistics
      shard-*.array_record  blocks, two records each: impressions, then events
      vocabulary/*.parquet  per table: raw (string), id, count
      users.parquet         index to raw user id, where given
      checksums.json        the size of every file, and the CRC-32 of every record and other file

    CRC-32 because it guards against damage, not malice: zlib's is the fastest hash of the standard library
    (3 GiB/s here, against 1.5 for SHA-1 and 0.7 for BLAKE2b), so that reading can always check.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        schema: Schema,
        *,
        source: str,
        vocabularies: Mapping[str, pl.DataFrame | os.PathLike] | None = None,
        users: pl.DataFrame | os.PathLike | None = None,
        extra: Mapping[str, Any] | None = None,
        shard_bytes: int = SHARD_BYTES,
    ):
        """A writer that has made nothing yet.

        Args:
          path: the store's directory, which must not exist.
          schema: what the blocks hold.
          source: name of the source, kept in schema.json.
          vocabularies: table name to columns `raw` (string), `id` and `count`, or to a Parquet file of them.
          users: columns `index` and `raw`, or a Parquet file of them.
          extra: JSON-ready settings of the preparation, kept in schema.json.
          shard_bytes: a shard is closed once it holds as many, before compression.

        Raises:
          UserError: if `path` exists, or a vocabulary is of no table of the schema.
        """
        self._path = pathlib.Path(path)
        if self._path.exists():
            raise UserError(f"{self._path} exists already: remove it or choose another directory")
        self._schema, self._source = schema, source
        self._vocabularies, self._users = dict(vocabularies or {}), users
        self._extra = dict(extra or {})
        for table in self._vocabularies:
            if table not in schema.tables:
                raise UserError(
                    f"vocabulary {table!r} is of no table, expected one of {sorted(schema.tables)}"
                )
        self._folder, self._shard_bytes = working_folder(self._path, "partial"), shard_bytes

    def __enter__(self) -> StoreWriter:
        self._partial = self._folder.__enter__()
        self._shards = ShardWriter(self._partial, "written", self._schema, self._source, self._shard_bytes)
        self._written = self._shards.written
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: Any) -> None:
        try:
            self.end_shard()
            if kind is None:
                self._finish()
        finally:
            self._folder.__exit__(kind, error, traceback)

    def write(self, block: Block) -> None:
        """Appends a block.

        Raises:
          UserError: if it breaks a promise of `Block`, or its ranks do not follow the last block's.
        """
        self._shards.write(block)

    def end_shard(self) -> None:
        """Lets the next block begin a shard."""
        self._shards.end_shard()

    def adopt(self, written: Written) -> None:
        """Appends shards that a `ShardWriter` wrote, in the file system of `path`; they are moved.

        Raises:
          UserError: if their ranks do not follow the last block's.
        """
        self.end_shard()
        moved = [
            file.rename(self._partial / f"adopted-{len(self._written.shards) + index:05d}.partial")
            for index, file in enumerate(written.shards)
        ]
        place = f"{written.shards[0]} of {self._source}" if written.shards else self._source
        self._written.append(dataclasses.replace(written, shards=moved), place)

    def _finish(self) -> None:
        if not self._written.ranks:
            raise UserError(f"{self._source} gave no block, expected at least one user")
        shards, total = [], len(self._written.shards)
        for index, (file, records) in enumerate(
            zip(self._written.shards, self._written.records, strict=True)
        ):
            name = f"shard-{index:05d}-of-{total:05d}.array_record"
            file.rename(self._partial / name)
            shards.append({"name": name, "blocks": len(records) // 2})
        self._write_tables()
        (self._partial / "schema.json").write_text(json.dumps(self._description(shards), indent=1))
        files = {}
        for file in sorted(self._partial.rglob("*")):
            if file.is_file():
                files[file.relative_to(self._partial).as_posix()] = {"bytes": file.stat().st_size}
        for shard, records in zip(shards, self._written.records, strict=True):
            files[shard["name"]]["records"] = records
        for name, entry in files.items():
            if "records" not in entry:
                entry["crc32"] = zlib.crc32((self._partial / name).read_bytes())
        (self._partial / "checksums.json").write_text(json.dumps({"files": files}))
        for file in (*self._partial.rglob("*"), self._partial):
            _sync(file)
        try:
            self._partial.rename(self._path)
        except OSError as error:
            raise UserError(
                f"{self._path} was made by another program meanwhile: {error.strerror}"
            ) from error
        _sync(self._path.parent)

    def _write_tables(self) -> None:
        (self._partial / "vocabulary").mkdir()
        for table, frame in self._vocabularies.items():
            _write_frame(frame, self._partial / "vocabulary" / f"{table}.parquet")
        if self._users is not None:
            _write_frame(self._users, self._partial / "users.parquet")

    def _description(self, shards: list[dict]) -> dict:
        statistics: dict[str, Any] = {"sequences": self._written.sequences, "events": self._written.events}
        for split, totals in self._written.totals.items():
            rate = totals["clicks"] / totals["impressions"] if totals["impressions"] else None
            first, last = self._written.times[split] or (None, None)
            statistics[split] = {**totals, "click_rate": rate, "first_time": first, "last_time": last}
        return {
            "format": FORMAT,
            "version": VERSION,
            "source": self._source,
            "time_unit": "seconds since 1970-01-01 UTC",
            "schema": self._schema.to_dict(),
            "statistics": statistics,
            "extra": self._extra,
            "shards": shards,
            "blocks": {"counts": self._written.counts, "ranks": self._written.ranks},
        }


def _write_frame(frame: pl.DataFrame | os.PathLike, target: pathlib.Path) -> None:
    if isinstance(frame, str | os.PathLike):
        shutil.copyfile(frame, target)
    else:
        frame.write_parquet(target)


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
