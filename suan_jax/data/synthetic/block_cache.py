"""Blocks of the synthetic log, kept on disk so that they are generated once for all runs that read them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from suan_jax.data.block import Block
from suan_jax.errors import UserError
from suan_jax.files import write_bytes

VARIABLE = "SUAN_SYNTHETIC_CACHE"
"""Environment variable: the directory; generated blocks are kept nowhere if it is not set."""

_DAMAGED = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)


def cached(log: str, index: int, make: Callable[[], Block]) -> Block:
    """A block from the cache; made and put there if it lacks it.

    Args:
      log: name of the log, which tells all apart whose blocks differ.
      index: of the block.
      make: generates it.

    Raises:
      UserError: if the cache cannot be written.
    """
    directory = os.environ.get(VARIABLE)
    if not directory:
        return make()
    path = Path(directory) / log / f"{index}.npz"
    with contextlib.suppress(*_DAMAGED):  # what is damaged is made anew
        return _read(path)
    block = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, _packed(block))
    except (OSError, UserError) as error:
        raise UserError(f"the cache of {VARIABLE} cannot be written ({error})") from error
    return block


def _read(path: Path) -> Block:
    fields: dict[str, np.ndarray | dict[str, np.ndarray]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            field, _, key = name.partition("/")
            if key:
                fields.setdefault(field, {})[key] = arrays[name]
            else:
                fields[field] = arrays[name]
    if missing := {field.name for field in dataclasses.fields(Block)} - set(fields):
        raise KeyError(missing)
    return Block(**fields)


def _packed(block: Block) -> bytes:
    arrays = {}
    for field in dataclasses.fields(Block):
        value = getattr(block, field.name)
        if isinstance(value, dict):
            arrays |= {f"{field.name}/{key}": array for key, array in value.items()}
        else:
            arrays[field.name] = value
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()
