"""Programs compiled side by side, and the reasons of those that cannot be: a row that fails ends no suite."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)
Made = TypeVar("Made")
_LONGEST = 200  # characters of a reason


def reason(error: Exception) -> str:
    """What a row says of the error that it failed with: its first line."""
    line = str(error).partition("\n")[0][:_LONGEST]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def made(makers: Mapping[Name, Callable[[], Made]]) -> tuple[dict[Name, Made], dict[Name, str]]:
    """Calls all functions at once, one thread a core: XLA compiles a program on few cores.

    Nothing of them should run on a device: XLA times variants of products there while it compiles.

    Args:
      makers: name to a function that lowers and compiles.

    Returns:
      Name to what its function returned, and name to the reason of each that failed.
    """
    results, reasons = {}, {}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        futures = {name: threads.submit(make) for name, make in makers.items()}
    for name, future in futures.items():
        try:
            results[name] = future.result()
        except Exception as error:  # whatever it is, the other rows need not fail with it
            reasons[name] = reason(error)
    return results, reasons
