"""Compiled programs are kept on disk, so that a repeated command starts at once."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def enable_compilation_cache() -> None:
    """Points JAX at a cache in the user's cache folder, unless `JAX_COMPILATION_CACHE_DIR` names another."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(root / "suan_jax" / "xla"))
