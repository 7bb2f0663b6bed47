"""What the machine can do at best, and how much fits into its memory."""

from __future__ import annotations

import dataclasses
import os

import jax


@dataclasses.dataclass(frozen=True)
class Peak:
    """A device's published best.

    Attributes:
      flops: dense bfloat16 operations per second.
      bandwidth: bytes per second between the device and its memory.
    """

    flops: float
    bandwidth: float


# NVIDIA's data sheets of the SXM modules.
_PEAKS = {"H100": Peak(990e12, 3.35e12), "H200": Peak(990e12, 4.8e12)}
_USABLE = 0.8  # of the memory, by what a suite holds at once


def peak() -> Peak | None:
    """The first device's peak; None if it is not known."""
    kind = jax.devices()[0].device_kind
    return next((peak for name, peak in _PEAKS.items() if name in kind), None)


def share(rate: float, best: float | None) -> float | None:
    """`rate` as a share of `best`; None if that is not known."""
    return None if best is None else rate / best


def accelerated() -> bool:
    """Whether the devices are something faster than a CPU."""
    return jax.default_backend() != "cpu"


def usable_memory() -> float:
    """Bytes that a suite may hold on the first device."""
    stats = jax.local_devices()[0].memory_stats()  # None on a CPU
    if stats and "bytes_limit" in stats:
        return _USABLE * stats["bytes_limit"]
    return _USABLE * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
