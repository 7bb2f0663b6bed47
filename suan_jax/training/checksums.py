"""Whether the files of a checkpoint are as they were written.

Orbax notices a file that is missing or cut short, and not that bytes of an array changed.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from suan_jax.paths import files_below, is_remote

_NAME = "checksums.json"
_PIECE = 1 << 22  # bytes read at once


def write_checksums(folder: Path) -> None:
    """Writes the size and CRC-32 of every file in the items of a checkpoint into its folder."""
    sums = {file.relative_to(folder).as_posix(): _checksum(file) for file in _files(folder)}
    (folder / _NAME).write_text(json.dumps(sums))


def find_damage(folder: Path) -> str:
    """What is wrong with the files of a checkpoint, such as "state/d/0 is missing"; empty if nothing is."""
    try:
        sums = json.loads((folder / _NAME).read_text())
        items = list(sums.items())
    except FileNotFoundError:
        return f"{_NAME} is missing"
    except (OSError, ValueError, AttributeError) as error:
        if is_remote(folder) and isinstance(error, OSError):
            raise
        return f"{_NAME} is damaged"
    for name, expected in items:
        try:
            if _checksum(folder / name) != expected:
                return f"{name} is altered"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            if is_remote(folder):
                raise  # which says nothing of the file
            return f"{name} cannot be read: {error.strerror}"
    return ""


def digest(folder: Path) -> str:
    """What tells a sound checkpoint from others, 16 hexadecimal digits."""
    return hashlib.sha256((folder / _NAME).read_bytes()).hexdigest()[:16]


def _files(folder: Path) -> Iterator[Path]:
    """Files in the items' own folders; beside these lies what Orbax adds when it is done."""
    for item in folder.iterdir():
        if item.is_dir():
            yield from files_below(item)


def _checksum(path: Path) -> list[int]:
    size, crc = 0, 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return [size, crc]
