"""Files that jobs leave: written under their final name at once, so that a kill leaves none half done."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from suan_jax.errors import UserError


def check_file_system(path: Path) -> None:
    """Checks that a path is not an object store's address, which `Path` takes for a folder named "gs:".

    Raises:
      UserError: if it is.
    """
    scheme = path.parts[0] if path.parts else ""
    if scheme.endswith(":") and len(scheme) > 2:
        raise UserError(
            f"{scheme}//{'/'.join(path.parts[1:])} is in an object store, expected a directory: mount the "
            "bucket, with gcsfuse for example, and name the mount"
        )


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` under `path`.

    Raises:
      UserError: if the file cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes an array as .npy.

    Raises:
      UserError: if the file cannot be written.
    """
    content = io.BytesIO()
    np.save(content, array)
    write_bytes(path, content.getvalue())


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON; numbers that JSON lacks (NaN, infinities) become null.

    Raises:
      UserError: if the file cannot be written.
    """

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: plain(entry) for key, entry in item.items()}
        if isinstance(item, list | tuple):
            return [plain(entry) for entry in item]
        if isinstance(item, float) and not math.isfinite(item):
            return None
        return item

    write_bytes(path, (json.dumps(plain(value), indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote.

    Raises:
      UserError: if the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error})") from error
