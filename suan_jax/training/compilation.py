"""Compiled programs are kept on disk, so that a repeated command starts at once."""

from __future__ import annotations

import os

import jax

from suan_jax.paths import cache_folder


def enable_compilation_cache() -> None:
    """Points JAX at a cache in the user's cache folder, unless `JAX_COMPILATION_CACHE_DIR` names another."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
