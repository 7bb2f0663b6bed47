"""Files that jobs leave: written under their final name at once, so that a kill leaves none half done.

At gs:// an object is there once it is whole, and replaces another at once.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from suan_jax.errors import UserError
from suan_jax.paths import is_refusal, is_remote


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` under `path`, which several may do at once; one of them is the last.

    Raises:
      UserError: if the file cannot be written.
    """
    if is_remote(path):
        _upload(path, content)
        return
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _upload(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except Exception as error:
        if not is_refusal(error):
            raise  # another try may do
        raise UserError(f"cannot write {path}: {error}") from error


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
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error})") from error
