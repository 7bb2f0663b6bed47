"""A block's behaviours and impressions laid out so that the history a candidate may match is one slice."""

from __future__ import annotations

import dataclasses

import numpy as np

from suan_jax.data.synthetic import world as w
from suan_jax.data.synthetic.timeline import Timeline
from suan_jax.data.synthetic.world import World


@dataclasses.dataclass
class Slots:
    """Behaviours, and impressions as the behaviours that a click would make of them.

    Columns (N,) are ordered by user, department, time, a click before a behaviour of the same second.

    Attributes:
      row: the user.
      time: seconds of the log; an impression's slot is one second after it.
      item: item, and its `sub`category, `brand` and `price`.
      action: index into `ACTIONS`.
      real: whether the behaviour happened; False at impressions until they are clicked.
      organic: organic behaviours of the user up to and with this slot, over all departments.
      impressions: impressions of the user up to and with this slot, likewise.
      place: (I,) where each impression's slot is.
      first: (I,) where the slots of its user and department begin.
      by_time: (N,) order of the slots by user, then time.
    """

    row: np.ndarray
    time: np.ndarray
    item: np.ndarray
    sub: np.ndarray
    brand: np.ndarray
    price: np.ndarray
    action: np.ndarray
    real: np.ndarray
    organic: np.ndarray
    impressions: np.ndarray
    place: np.ndarray
    first: np.ndarray
    by_time: np.ndarray


def arrange(world: World, timeline: Timeline) -> Slots:
    """Merges a block's behaviours and impressions."""
    t = timeline
    users, shown = len(t.profile["age"]), len(t.shown_row)
    key = np.concatenate([t.shown_row << 33 | t.shown_time + 1 << 1, t.row << 33 | t.time << 1 | 1])
    merged = np.argsort(key, kind="stable")  # of two sorted runs: a merge
    row = np.concatenate([t.shown_row, t.row])[merged]
    is_shown = merged < shown

    def count(flag: np.ndarray, rows: np.ndarray) -> np.ndarray:
        total = np.bincount(rows, minlength=users)
        return np.cumsum(flag) - (np.cumsum(total) - total)[row]

    organic, impressions = count(~is_shown, t.row), count(is_shown, t.shown_row)
    item = np.concatenate([t.shown_item, t.item])[merged]
    group = row * w.DEPARTMENTS + world.subcategory(item) // 32
    order = np.argsort(group.astype(np.uint16), kind="stable")
    size = np.bincount(group, minlength=users * w.DEPARTMENTS)
    by_time = np.empty_like(order)
    by_time[order] = np.arange(len(order))
    place = by_time[np.flatnonzero(is_shown)]
    item = item[order]
    brand, price = world.brand_and_price(item)
    return Slots(
        row=row[order],
        time=np.concatenate([t.shown_time + 1, t.time])[merged[order]],
        item=item,
        sub=world.subcategory(item),
        brand=brand,
        price=price,
        action=np.concatenate([np.full(shown, w.CLICK), t.action])[merged[order]],
        real=~is_shown[order],
        organic=organic[order],
        impressions=impressions[order],
        place=place,
        first=(np.cumsum(size) - size)[group[is_shown]],
        by_time=by_time,
    )
