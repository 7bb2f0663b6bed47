"""Where jobs read and write: directories, and Google Cloud Storage at gs://BUCKET/PATH.

A path there is etils.epath's, which has the methods of pathlib's; Orbax takes it too. What the two do
differently is here: an object store has no directories, replaces objects whole, and moves none.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib.util
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from suan_jax.errors import Unreached, UserError
from suan_jax.notice import notice

# A bucket's name, and a path without what URLs and patterns read as something else.
_ADDRESS = re.compile(r"gs://[a-z0-9][a-z0-9._-]+[a-z0-9](/[^?#*\[\]]*)?")

_CLIENTS = ("aiohttp", "gcsfs", "google", "requests")  # by which it is reached, whose errors may be their own
_PATIENCE = 5.0  # seconds without an answer after which a job says so


def path_of(text: str | os.PathLike) -> Path:
    """The path that a user gave, of a directory or file here or at gs://.

    Raises:
      UserError: if it is in another object store, no address at gs://, not for this account to read, or what
        reads it is not installed; `Unreached` if the store does not answer.
    """
    address = os.fspath(text)
    if not address.startswith("gs://"):
        check_local(address, "a directory, or gs://BUCKET/PATH")
        return Path(text)
    if not _ADDRESS.fullmatch(address):
        raise UserError(f"{address} is no address, expected gs://BUCKET/PATH without any of ?#*[]")
    if not importlib.util.find_spec("gcsfs"):
        raise UserError(f"gcsfs, which {address} is reached by, is not installed: pip install -e '.[gcs]'")
    os.environ["EPATH_USE_TF"] = "false"  # TensorFlow, where it is installed, would be asked instead
    import fsspec.config
    from etils import epath

    # Orbax writes past gcsfs, which would not notice.
    fsspec.config.conf.setdefault("gs", {})["use_listings_cache"] = False
    path = epath.Path(address)
    # gcsfs tries for most of a minute.
    patience = threading.Timer(_PATIENCE, notice, [f"{address} does not answer yet, which is tried again"])
    patience.daemon = True
    patience.start()
    try:
        if not path.exists():
            any(path.glob("*"))  # which a bucket that is not there refuses
    except FileNotFoundError as error:
        raise UserError(f"{address} cannot be reached: this account sees no such bucket") from error
    except Exception as error:
        if is_refusal(error):
            raise UserError(f"{address} cannot be reached: {error}") from error
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _CLIENTS:
            raise  # a bug
        reason = str(error) or type(error).__name__
        raise Unreached(f"{address} cannot be reached ({reason}): repeat the command once it can") from error
    finally:
        patience.cancel()
    return path


def is_remote(path: str | os.PathLike) -> bool:
    """Whether `path_of` gave an address at gs://, of which `Path` would lose a slash."""
    return os.fspath(path).startswith("gs://")


def is_refusal(error: Exception) -> bool:
    """Whether an object store said no, as without the right or the bucket; else it was not reached."""
    by_gcsfs = type(error) in (OSError, FileNotFoundError)  # those of a broken connection are of other types
    by_http = str(getattr(error, "code", "")) in ("400", "401", "403", "404")
    by_account = type(error).__module__.startswith("google.auth") and type(error).__name__ != "TransportError"
    return by_gcsfs or by_http or by_account


def check_local(path: str | os.PathLike, expected: str = "a directory") -> None:
    """Checks that a path is not an object store's address, which `Path` takes for a folder named "gs:".

    Args:
      path: what a user gave.
      expected: what was to be given.

    Raises:
      UserError: if it is.
    """
    given = os.fspath(path)
    scheme, _, rest = given.partition("/")
    if scheme.endswith(":") and len(scheme) > 2:
        shown = given if isinstance(path, str) else f"{scheme}//{rest}"
        raise UserError(
            f"{shown} is in an object store, expected {expected}; a bucket can be mounted, with gcsfuse for "
            "example"
        )


def cache_folder() -> Path:
    """Where this user keeps what can be had again."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "suan_jax"


def make_folder(path: Path) -> None:
    """Makes a directory and those above it, if need be; an object store needs none.

    Raises:
      OSError: if that cannot be.
    """
    if not is_remote(path):
        path.mkdir(parents=True, exist_ok=True)


def files_below(folder: Path, name: str = "*") -> Iterator[Path]:
    """The files in a folder, and in the folders in it, that match a name, in any order."""
    if is_remote(folder):
        # One listing for all of them.
        found = (type(folder)(f"gs://{file}") for file in object_store().find(str(folder)))
        return (file for file in found if fnmatch.fnmatch(file.name, name))
    return (file for file in folder.rglob(name) if file.is_file())


def move_folder(folder: Path, target: Path) -> None:
    """Gives a folder another name, instead of what stands there; at gs:// its files one after another."""
    if not is_remote(folder):
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
        return
    store = object_store()
    with contextlib.suppress(FileNotFoundError):
        store.rm(str(target), recursive=True)
    store.copy(str(folder), str(target), recursive=True)
    store.rm(str(folder), recursive=True)


def object_store() -> Any:
    """gcsfs's file system, for what epath cannot do."""
    import fsspec

    return fsspec.filesystem("gs")
