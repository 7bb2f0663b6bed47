"""Stores at gs:// are read from a copy on this machine's disk, as shards are read at random."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from suan_jax.errors import UserError
from suan_jax.notice import notice
from suan_jax.paths import cache_folder, is_refusal, object_store

_CHECKSUMS = "checksums.json"
_AGAIN = "copy the store there again"


def local_copy(address: Path) -> Path:
    """Copies the store at an address at gs:// into the user's cache, unless it is there already.

    A copy goes by the checksum of its checksums.json, so that a store that is prepared again is copied again.
    Sizes, and the checksums of all but the shards, whose records are checked as they are read, are checked.
    Processes of one machine wait for the first of them.

    Args:
      address: of the store, from `path_of`.

    Returns:
      The copy, of which every file is there; no older copy is removed.

    Raises:
      UserError: if there is no store, it cannot be read, a file is not what its checksum says, or the disk is
        full.
    """
    sums, files = _checksums(address)
    copy = cache_folder() / "stores" / hashlib.sha256(sums).hexdigest()[:16]
    if copy.is_dir():
        return copy
    partial = copy.with_name(f".{copy.name}.{os.getpid()}.partial")
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with _alone(copy.with_name(f"{copy.name}.lock")):
            if not copy.is_dir():
                size = sum(entry["bytes"] for entry in files.values())
                notice(f"copying {address}, {size / 1e9:.1f} GB, to {copy}")
                _download(address, files, partial)
                (partial / _CHECKSUMS).write_bytes(sums)
                partial.replace(copy)
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError):
            raise
        raise UserError(f"cannot copy {address} to {copy}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return copy


def _checksums(address: Path) -> tuple[bytes, dict[str, dict]]:
    """The checksums.json of a store, and the files that it lists."""
    try:
        sums = (address / _CHECKSUMS).read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"no store at {address}, which has no {_CHECKSUMS}: write one to a directory with "
            "launch/prepare.py, and copy that there"
        ) from error
    except Exception as error:
        if not is_refusal(error):
            raise
        raise UserError(f"cannot read {address / _CHECKSUMS}: {error}") from error
    try:
        files = json.loads(sums)["files"]
        for name, entry in files.items():
            if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute() or entry["bytes"] < 0:
                raise ValueError(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{address / _CHECKSUMS} is damaged ({error!r}): {_AGAIN}") from error
    return sums, files


def _download(address: Path, files: dict[str, dict], target: Path) -> None:
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
    sources = [str(address / name) for name in files]
    try:
        object_store().get(sources, [str(target / name) for name in files])
    except FileNotFoundError as error:
        raise UserError(f"{address} lacks a file of its {_CHECKSUMS} ({error}): {_AGAIN}") from error
    for name, entry in files.items():
        size = (target / name).stat().st_size
        if size != entry["bytes"]:
            raise UserError(f"{address / name} has {size} bytes, expected {entry['bytes']}: {_AGAIN}")
        if "crc32" in entry and zlib.crc32((target / name).read_bytes()) != entry["crc32"]:
            raise UserError(f"{address / name} is altered, its checksum differs: {_AGAIN}")


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keeps other processes out."""
    with lock.open("w") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
