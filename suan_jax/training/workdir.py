"""The files of a work directory: whose it is, and writes that a kill cannot leave half done."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from suan_jax.config import Config
from suan_jax.config_dict import differences, from_dict, to_dict
from suan_jax.errors import UserError

# A run may go on elsewhere: these say where and how fast it runs, not what it computes.
_FREE = ("mesh.", "data.threads")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` under `path` at once; numbers that JSON lacks (NaN, infinities) become null."""

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: plain(entry) for key, entry in item.items()}
        if isinstance(item, list | tuple):
            return [plain(entry) for entry in item]
        if isinstance(item, float) and not math.isfinite(item):
            return None
        return item

    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        json.dump(plain(value), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote.

    Raises:
      UserError: if the file is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error})") from error


def claim(workdir: Path, config: Config) -> None:
    """Makes `workdir` this config's, or checks that it is.

    Raises:
      UserError: if it belongs to another config (naming the fields that differ), or cannot be written.
    """
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the work directory {workdir}: {error.strerror}") from error
    if path.exists():
        changed = [
            change for change in differences(read_config(workdir), config) if not change.startswith(_FREE)
        ]
        if changed:
            raise UserError(
                f"{workdir} holds a run of another config ({'; '.join(changed)}): give another --workdir, "
                "or the config it was started with"
            )
    else:
        write_json(path, to_dict(config))


def read_config(workdir: Path) -> Config:
    """The config that a work directory was started with.

    Raises:
      UserError: if there is none, or it cannot be read.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(f"{workdir} is not a work directory of a training run: it has no config.json")
    return from_dict(read_json(path))
