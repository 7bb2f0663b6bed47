"""What goes online: scores of raw requests, from a work directory or from an exported artifact."""

from __future__ import annotations

import importlib
from typing import Any

from suan_jax.serving.request import User

__all__ = ["Artifact", "HistoryCache", "Scorer", "User"]

_HOMES = {"Artifact": "artifact", "HistoryCache": "scorer", "Scorer": "scorer"}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: an artifact is read without the code of the models."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
