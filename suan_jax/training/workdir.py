"""A work directory: whose it is."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tokenize
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from suan_jax.config import Config
from suan_jax.config_check import validate
from suan_jax.config_dict import differences, from_dict, to_dict
from suan_jax.errors import UserError
from suan_jax.files import read_json, write_json
from suan_jax.paths import check_local, is_remote, make_folder

SUMMARY = "summary.json"
SCORES = "scores.npy"
CONFIG = "config.json"
# A run may go on elsewhere: these say where and how fast it runs, not what it computes.
_FREE = ("mesh.", "data.threads")


def check_unclaimed(workdir: Path, config: Config) -> None:
    """Checks that a work directory is new, or holds a run of this config.

    Raises:
      UserError: if it holds a run of another config, naming the fields that differ, or of an unknown one.
    """
    _check_path(workdir)
    if not (workdir / CONFIG).exists():
        if (workdir / SUMMARY).exists() or any((workdir / "checkpoints").glob("[0-9]*")):
            raise UserError(
                f"{workdir} holds a run without its {CONFIG}: put that back, or give another --workdir"
            )
        return
    if changed := changes(read_config(workdir), config):
        raise UserError(
            f"{workdir} holds a run of another config ({'; '.join(changed)}): give another --workdir, or the "
            "config it was started with"
        )


def changes(run: Config, config: Config) -> list[str]:
    """In what a config differs from a run's, a sentence a field, but for where and how fast it runs."""
    return [change for change in differences(run, config) if not change.startswith(_FREE)]


def _check_path(workdir: Path) -> None:
    if not is_remote(workdir):
        check_local(workdir, "what suan_jax.paths.path_of makes of it")


def hold(workdir: Path, stack: contextlib.ExitStack) -> None:
    """Keeps other jobs out of a work directory, made if need be; `stack`, or a kill, lets go of it.

    Nothing is held at gs://, where a killed job would hold on for good.

    Raises:
      UserError: if another job holds it.
    """
    _make(workdir)
    if is_remote(workdir):
        return
    descriptor = os.open(workdir, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{workdir} is in use by another process: wait for it, or give another --workdir"
        ) from None
    except OSError:
        pass  # a file system without locks


def _make(workdir: Path) -> None:
    try:
        make_folder(workdir)
    except OSError as error:
        raise UserError(f"cannot make the work directory {workdir}: {error.strerror}") from error


def claim(workdir: Path, config: Config) -> bool:
    """Makes a work directory, if need be, and writes the config into it.

    Returns:
      Whether it held none before.

    Raises:
      UserError: if that cannot be.
    """
    _make(workdir)
    new = not (workdir / CONFIG).exists()
    write_json(workdir / CONFIG, to_dict(config))
    return new


def release(workdir: Path) -> None:
    """Takes a `claim` back."""
    (workdir / CONFIG).unlink()


def read_summary(workdir: Path) -> dict[str, Any]:
    """The summary of a run that has finished.

    Raises:
      UserError: if it is damaged.
    """
    path = workdir / SUMMARY
    try:
        summary = json.loads(path.read_text(), parse_constant=_refuse_constant)
        if not isinstance(summary["auc"], int | float | None):
            raise TypeError("no AUC")
        return summary
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not the summary of a run: remove it and repeat the command") from error


def _refuse_constant(name: str) -> NoReturn:
    # `write_json` writes none of them.
    raise ValueError(f"{name} is no JSON")


def read_scores(workdir: Path) -> np.ndarray:
    """The scores that a finished run left.

    Raises:
      UserError: if there are none, or they are damaged.
    """
    path = workdir / SCORES
    try:
        with path.open("rb") as file:
            scores = np.lib.format.read_array(file)
        if not {"user", "label", "logit"} <= set(scores.dtype.names or ()):
            raise ValueError("no table of users, labels and logits")
        return scores
    except (OSError, ValueError, EOFError, tokenize.TokenError) as error:
        raise UserError(
            f"{path} is missing or damaged: remove the {SUMMARY} beside it and repeat the command"
        ) from error


def read_config(workdir: Path) -> Config:
    """The config that a work directory was started with.

    Raises:
      UserError: if there is none, or it cannot be read.
    """
    _check_path(workdir)
    path = workdir / CONFIG
    if not path.exists():
        raise UserError(f"{workdir} is not a work directory of a training run: it has no {CONFIG}")
    try:
        config = from_dict(read_json(path))
    except (TypeError, AttributeError) as error:
        raise UserError(f"{path} is not the config of a training run ({error})") from error
    validate(config)
    return config
