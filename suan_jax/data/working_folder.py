"""Folders that a preparation works in: hidden, beside the store, and gone at the end, whatever ended it."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from suan_jax.errors import UserError


@contextlib.contextmanager
def working_folder(path: Path, kind: str) -> Iterator[Path]:
    """A new folder for what becomes `path`, held until the end and removed then.

    A kill leaves its folder behind, held by nobody: the next job for the same `path` removes it.

    Args:
      path: what is to be written; the folder lies beside it.
      kind: what the folder is for, the end of its name.

    Raises:
      UserError: if it cannot be made.
    """
    folder = path.with_name(f".{path.name}.{os.getpid()}.{kind}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.{kind}"):
            _remove_unless_held(left)
        folder.mkdir()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks, where nothing is taken for left
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _remove_unless_held(folder: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(descriptor)
