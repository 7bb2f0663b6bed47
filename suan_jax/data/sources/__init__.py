"""Where click logs come from: each source reads its raw files as a `RawLog`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from suan_jax.data.raw_log import RawLog
from suan_jax.data.sources import (
    amazon_electronics_x1,
    eleme,
    kuairand_pure,
    kuaivideo_x1,
    logs,
    taobao_ad,
    taobao_ad_x1,
)

SOURCES: dict[str, Callable[[Path, Any], RawLog]] = {
    "kuairand_pure": kuairand_pure.read,
    "taobao_ad": taobao_ad.read,
    "eleme": eleme.read,
    "amazon_electronics_x1": amazon_electronics_x1.read,
    "taobao_ad_x1": taobao_ad_x1.read,
    "kuaivideo_x1": kuaivideo_x1.read,
    "logs": logs.read,
}
"""Name to a function of the folder of raw files and the spec (None where the source takes none)."""
