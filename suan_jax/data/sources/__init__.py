"""Where click logs come from: each source reads its raw files as a `RawLog`."""

from __future__ import annotations

from collections.abc import Callable

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

SOURCES: dict[str, Callable[..., RawLog]] = {
    "kuairand_pure": kuairand_pure.read,
    "taobao_ad": taobao_ad.read,
    "eleme": eleme.read,
    "amazon_electronics_x1": amazon_electronics_x1.read,
    "taobao_ad_x1": taobao_ad_x1.read,
    "kuaivideo_x1": kuaivideo_x1.read,
    "logs": logs.read,
}
"""Name to a function of the folder of raw files; that of "logs" takes the spec too."""
