"""versions.json: what a run ran with, so that its numbers can be had again."""

from __future__ import annotations

import collections
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from suan_jax.files import read_json, write_json

_PACKAGES = (
    "suan-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "libtpu",
    "jax-cuda12-plugin",
    "jax-cuda13-plugin",
)
_VARIABLES = ("JAX_", "XLA_", "LIBTPU_", "NCCL_", "SUAN_JAX_", "SLURM_JOB_ID")
_ROOT = Path(__file__).absolute().parents[2]


def versions() -> dict[str, Any]:
    """Python, packages, the commit of this checkout, devices, processes, and the variables that JAX reads."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": packages,
        "commit": _commit(),
        "devices": dict(collections.Counter(device.device_kind for device in jax.devices())),
        "processes": jax.process_count(),
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)
        },
    }


def record_versions(workdir: Path, step: int) -> None:
    """Adds an entry to the list in versions.json, unless the last one says the same.

    Args:
      workdir: of the run.
      step: that the run goes on from with them, its `from_step`.

    Raises:
      UserError: if the file cannot be read or written.
    """
    path = workdir / "versions.json"
    entries = read_json(path) if path.exists() else []
    now = versions()
    if not entries or {**entries[-1], "from_step": step} != {"from_step": step, **now}:
        write_json(path, [*entries, {"from_step": step, **now}])


def _commit() -> str | None:
    """The commit of the checkout that runs, with a + where files differ from it; None if it is none."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(_ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    if not (_ROOT / ".git").exists():
        return None
    try:
        return git("rev-parse", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None
