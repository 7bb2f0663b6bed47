"""Where click logs come from: each source reads its raw files as a `RawLog`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from suan_jax.data.raw_log import RawLog
from suan_jax.data.sources import kuairand_pure, logs

SOURCES: dict[str, Callable[[Path, Any], RawLog]] = {
    "kuairand_pure": kuairand_pure.read,
    "logs": logs.read,
}
"""Name to a function of the folder of raw files and the spec (None where the source takes none)."""
