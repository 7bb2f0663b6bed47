"""Reads a store: the directory form of a click log, which checks what it reads."""

from __future__ import annotations

import io
import json
import os
import pathlib
import threading
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from suan_jax.data.block import Block
from suan_jax.data.checks import check_ids
from suan_jax.data.encoding import decode_block
from suan_jax.data.store_copy import local_copy
from suan_jax.data.store_writer import FORMAT, VERSION
from suan_jax.errors import UserError
from suan_jax.paths import check_local, is_remote, path_of
from suan_jax.schema import SPLITS, Schema

if TYPE_CHECKING:  # polars is needed by preparation and serving alone
    import polars as pl

_USERS = "users.parquet"


def open_store(path: str | os.PathLike) -> Store:
    """Opens the store that `launch/prepare.py` wrote at `path`; one at gs:// from a copy, made if need be.

    Raises:
      UserError: if there is none, it is of another format version, or a file of it is missing, truncated
        or altered; records are checked as they are read.
    """
    place = path_of(path)
    try:
        return Store(local_copy(place), str(place)) if is_remote(place) else Store(place)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no store that can be read: its schema.json or checksums.json is damaged ({error!r}), "
            "prepare the store again"
        ) from error


class Store:
    """A log on disk; what `Log` promises, and more. Safe under threads, and picklable.

    Attributes:
      schema: the features.
      num_blocks: number of blocks.
      fingerprint: the checksum of its checksums.
      statistics: sequences, events, and per split impressions, clicks, click_rate, sequences, first_time
        and last_time (seconds; None where the split is empty).
      source: name of the source it was prepared from.
      extra: settings of the preparation.
      vocabularies: the tables whose ids have raw values.
      has_raw_users: whether its users have raw ids.
      ranks: (num_blocks, 2) float64, the first and the last rank of each block.
    """

    def __init__(self, path: str | os.PathLike, address: str = ""):
        """Opens it.

        Args:
          path: of its directory.
          address: at gs://, of which that is a copy.

        Raises:
          UserError: as `open_store`.
        """
        check_local(path)
        self._path = pathlib.Path(path)
        self._address = address
        description, self._files = _open_description(self._path)
        self.schema = Schema.from_dict(description["schema"])
        self.source: str = description["source"]
        self.statistics: dict[str, Any] = description["statistics"]
        self.extra: dict[str, Any] = description["extra"]
        self.vocabularies = frozenset(
            name for name in self.schema.tables if f"vocabulary/{name}.parquet" in self._files
        )
        self.has_raw_users = _USERS in self._files
        self.ranks = np.array(description["blocks"]["ranks"], np.float64)
        self.num_blocks = len(self.ranks)
        self.fingerprint = f"{zlib.crc32(json.dumps(self._files, sort_keys=True).encode()):08x}"
        self._counts = {name: np.array(n, np.int64) for name, n in description["blocks"]["counts"].items()}
        self._shards = [shard["name"] for shard in description["shards"]]
        self._sums = [self._files[name]["records"] for name in self._shards]
        blocks = [shard["blocks"] for shard in description["shards"]]
        self._first_block = np.cumsum([0, *blocks])[:-1]
        self._lock = threading.Lock()
        self._readers: dict[tuple[int, int], ArrayRecordReader] = {}

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_readers")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _readers={})

    def __str__(self) -> str:
        return f"the store at {self._address or self._path}"

    def counts(self, split: str) -> np.ndarray:
        """Impressions of a split in each block, (num_blocks,) int64.

        Raises:
          UserError: if there is no such split.
        """
        if split not in self._counts:
            raise UserError(f"{self} has no split {split!r}, expected one of {', '.join(SPLITS)}")
        return self._counts[split]

    def block(self, index: int) -> Block:
        """The block at `index`.

        Raises:
          UserError: if its shard is damaged, or an id lies outside its vocabulary.
        """
        return self._read(index, with_events=True)

    def impressions(self, index: int) -> Block:
        """The same without its events: `visible` stays, but every sequence is empty. Cheaper, for scans."""
        return self._read(index, with_events=False)

    def vocabulary(self, table: str) -> pl.DataFrame:
        """The vocabulary of a table: raw (string), id, count.

        Raises:
          UserError: if the store holds none for it, or its file is altered.
        """
        name = f"vocabulary/{table}.parquet"
        if name not in self._files:
            raise UserError(f"{self} has no vocabulary {table!r}, so its ids have no raw values")
        return self._read_frame(name)

    def raw_users(self) -> pl.DataFrame:
        """User index to raw user id: index, raw.

        Raises:
          UserError: if the store holds none, or the file is altered.
        """
        if not self.has_raw_users:
            raise UserError(f"{self} has no {_USERS}, so its users have no raw ids")
        return self._read_frame(_USERS)

    def _read(self, index: int, with_events: bool) -> Block:
        if not 0 <= index < self.num_blocks:
            raise IndexError(f"{self} has {self.num_blocks} blocks, got {index}")
        shard = int(np.searchsorted(self._first_block, index, side="right")) - 1
        first = 2 * (index - int(self._first_block[shard]))
        wanted = [first, first + 1] if with_events else [first]
        path = self._path / self._shards[shard]
        try:
            records = self._reader(shard).read(wanted)
        except Exception as error:  # what the library raises on damage is not documented
            mend = f"remove {self._path}, a copy" if self._address else "prepare the store again"
            raise UserError(f"{path} cannot be read: it is damaged, {mend}") from error
        for record, position in zip(records, wanted, strict=True):
            if zlib.crc32(record) != self._sums[shard][position]:
                raise UserError(f"{path}: record {position} is altered, its checksum differs")
        block = decode_block(records[0], records[1] if with_events else None)
        check_ids(self.schema, block, f"{path}: block {index}")
        return block

    def _reader(self, shard: int) -> ArrayRecordReader:
        key = (os.getpid(), shard)  # a forked process shares no file offset with its parent
        with self._lock:
            if key not in self._readers:
                path = str(self._path / self._shards[shard])
                options = "readahead_buffer_size:0,max_parallelism:0"  # for random access
                self._readers[key] = ArrayRecordReader(path, options, file_reader_buffer_size=1 << 16)
            return self._readers[key]

    def _read_frame(self, name: str) -> pl.DataFrame:
        import polars as pl

        return pl.read_parquet(io.BytesIO(_checked(self._path / name, self._files[name])))


def _open_description(path: pathlib.Path) -> tuple[dict, dict]:
    """Checks all that can be checked without reading shards; (schema.json, files of checksums.json)."""
    if not path.is_dir():
        raise UserError(
            f"no store at {path}: write one with "
            f"python launch/prepare.py --source=NAME --raw=DIR --out={path}"
        )
    description = _read_json(path / "schema.json", path)
    if description.get("format") != FORMAT:
        raise UserError(
            f"{path} is not a store: its schema.json names the format {description.get('format')!r}"
        )
    if description.get("version") != VERSION:
        raise UserError(
            f"{path} has format version {description.get('version')}, expected {VERSION}: prepare it again"
        )
    files = _read_json(path / "checksums.json", path).get("files", {})
    # Only then is the rest of what it says believed.
    if "schema.json" in files:
        _checked(path / "schema.json", files["schema.json"])
    for name in ("schema.json", *(shard["name"] for shard in description["shards"])):
        if name not in files:
            raise UserError(f"{path / 'checksums.json'} does not list {name}: prepare the store again")
    for name, entry in files.items():
        file = path / name
        if not file.is_file():
            raise UserError(f"{file} is missing: the store needs every file that was written with it")
        size = file.stat().st_size
        if size != entry["bytes"]:
            what = "truncated" if size < entry["bytes"] else "altered"
            raise UserError(f"{file} is {what}: it has {size} bytes, expected {entry['bytes']}")
    return description, files


def _read_json(file: pathlib.Path, store: pathlib.Path) -> dict:
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{store} is not a store: it has no {file.name}") from error
    except ValueError as error:
        raise UserError(f"{file} is not valid JSON: it is damaged, prepare the store again") from error
    if not isinstance(value, dict):
        raise UserError(f"{file} is not a store's: expected a JSON object")
    return value


def _checked(file: pathlib.Path, entry: dict) -> bytes:
    data = file.read_bytes()
    if zlib.crc32(data) != entry["crc32"]:
        raise UserError(f"{file} is altered: its checksum differs")
    return data
