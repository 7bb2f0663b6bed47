"""Negatives for a log that has clicks only."""

from __future__ import annotations

import numpy as np

from suan_jax.data.sources.log_spec import Negatives

_DAY = 24 * 3600
_ROUNDS = 64  # draws for one slot; beyond it the slot stays empty


def sample_negatives(time: np.ndarray, item: np.ndarray, settings: Negatives) -> np.ndarray:
    """Draws items for each click from those clicked strictly before it.

    A draw by popularity is the item of a click drawn uniformly from the past, which needs no counts. The
    click's own item is drawn again, and a slot stays empty if 64 draws give nothing else; so do all slots of
    the first clicks, before which nothing is known, and, for "recent", of a click after a silent window.

    Args:
      time: (n,) int64 seconds, ascending.
      item: (n,) int64 codes from 0 on.
      settings: how many and which.

    Returns:
      (n, per_positive) int64 codes, -1 in an empty slot; a function of its arguments alone.
    """
    if settings.kind == "uniform":
        _, first = np.unique(item, return_index=True)
        first = np.sort(first)  # each item where it is first seen
        pool, low, high = item[first], np.zeros(len(time), np.int64), np.searchsorted(time[first], time)
    else:
        pool, high = item, np.searchsorted(time, time)
        window = settings.days * _DAY if settings.kind == "recent" else np.inf
        low = np.searchsorted(time, time - window)
    drawn = np.full((len(time), settings.per_positive), -1, np.int64)
    generator = np.random.Generator(np.random.Philox(settings.seed))
    for _ in range(_ROUNDS):
        row, slot = np.nonzero((drawn < 0) & (high > low)[:, None])
        if not len(row):
            break
        span = high[row] - low[row]
        offset = np.minimum((generator.random(len(row)) * span).astype(np.int64), span - 1)
        choice = pool[low[row] + offset]
        drawn[row, slot] = np.where(choice == item[row], -1, choice)
    return drawn
