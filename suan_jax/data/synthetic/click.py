"""The click: the part of the logit that reads the history, and labels drawn from the whole, in time order."""

from __future__ import annotations

import dataclasses

import numpy as np

from suan_jax.data.synthetic import world as w
from suan_jax.data.synthetic.slots import Slots
from suan_jax.data.synthetic.timeline import Timeline, ragged
from suan_jax.data.synthetic.world import World

MATCH = np.array([0.3, 0.6, 0.8, 1.0, 0.8])  # v: weight of an action where a behaviour matches
RETURN = np.array([0.15, 0.3, 0.4, 0.6, 1.0])  # v': its weight where an interest returns
SHORT = np.array([2.0, 3.0, 4.0, 6.0, 8.0, 12.0]) * 3600.0  # half-life by age, seconds
LONG = np.array([24.0, 18.0, 12.0, 8.0]) * w.DAY  # half-life by activity, seconds
RECENT = 1.0 * w.DAY  # half-life of steps and runs, seconds


@dataclasses.dataclass
class Clicks:
    """What became of the impressions (I,).

    Attributes:
      label: bool, whether it was clicked.
      visible: behaviours of the user before it.
      logit: log-odds that the label was drawn from.
      logit_at_length: the same function of the last `max_len` behaviours alone.
    """

    label: np.ndarray
    visible: np.ndarray
    logit: np.ndarray
    logit_at_length: np.ndarray


def _kernel(age: np.ndarray, half_life: np.ndarray | float) -> np.ndarray:
    x = age / half_life
    return 1.0 / (1.0 + x * x)


def _logit(world: World, sums: dict[str, np.ndarray]) -> np.ndarray:
    """Parts (b), (c) and (d) from their sums over behaviours."""
    p = world.weights
    z = p.short * sums["short"] / (1.0 + sums["short"]) + p.long * sums["long"] / (0.4 + sums["all"])
    z = z + p.back * sums["back"] / (0.3 + sums["about"])
    return z + p.chain * sums["step"] / (0.25 + sums["steps"]) - p.fatigue * sums["run"] / (3.0 + sums["run"])


class _Shown:
    """Columns of impressions, as indexed by the pairs of `_terms`."""

    def __init__(self, world: World, timeline: Timeline, slots: Slots):
        own = slots.place
        self.item, self.sub, self.brand = slots.item[own], slots.sub[own], slots.brand[own]
        self.time = timeline.shown_time
        profile = {name: values[timeline.shown_row] for name, values in timeline.profile.items()}
        self.short, self.long = SHORT[profile["age"]], LONG[profile["activity"]]
        self.period = world.period[self.sub]
        self.base = world.base_logit(profile, timeline.context, self.item, slots.price[own], self.time)


Terms = dict[str, tuple[np.ndarray, np.ndarray]]


def _terms(world: World, slots: Slots, shown: _Shown, g: np.ndarray, i: np.ndarray, e: np.ndarray) -> Terms:
    """Terms of the sums over pairs of an impression and an earlier behaviour of its department.

    Args:
      world: the world.
      slots: the block's slots.
      shown: the block's impressions.
      g: (P,) ascending number of the impression among those of this call.
      i: (P,) the impression.
      e: (P,) slot of the behaviour, ascending within an impression.

    Returns:
      Name of the sum to (pairs (Q,), terms (Q,)). A step's pair is the earlier of its two behaviours.
    """
    age = (shown.time[i] - slots.time[e]).astype(np.float64)
    sub, sub_c, action = slots.sub[e], shown.sub[i], slots.action[e]
    cat, cat_c = sub >> 2, sub_c >> 2
    long = MATCH[action] * _kernel(age, shown.long[i])
    terms = {"all": (np.arange(len(e)), long)}

    # Steps: neighbours of the department that differ in category.
    second = np.flatnonzero((cat[1:] != cat[:-1]) & (g[1:] == g[:-1])) + 1
    code = (cat[second - 1] & 7) * 8 + (cat[second] & 7)
    recent = _kernel(age[second], RECENT)
    terms["steps"] = (second - 1, recent)
    terms["step"] = (second - 1, recent * world.follow[cat_c[second], code])

    # Matches: behaviours of the candidate's category.
    q = np.flatnonzero(cat == cat_c)
    g, i, e, age, action = g[q], i[q], e[q], age[q], action[q]
    same, buy = sub[q] == sub_c[q], action == w.BUY
    last_buy = np.full((2, int(g[-1]) + 1 if len(g) else 0), -1)  # of the category, of the subcategory
    last_buy[0, g[buy]] = e[buy]  # of repeated indices the last, so the latest buy, stays
    last_buy[1, g[buy & same]] = e[buy & same]

    match = np.where(same, 1.0, 0.35) + 0.5 * (slots.brand[e] == shown.brand[i])
    match = match + (slots.item[e] == shown.item[i])
    match = match * np.where(same & (e <= last_buy[1, g]), 1.0 - world.weights.satiation, 1.0)
    terms["short"] = (q, match * MATCH[action] * _kernel(age, shown.short[i]))
    terms["long"] = (q, match * long[q])
    free = np.flatnonzero(e > last_buy[0, g])
    terms["run"] = (q[free], _kernel(age[free], RECENT))

    # Returns: behaviours of the candidate's subcategory within half a period of one period ago.
    late = age / shown.period[i] - 1.0
    due = np.flatnonzero(same & (late < 0.5) & (late >= -0.5))
    weight, late = RETURN[action[due]], late[due]
    terms["about"] = (q[due], weight)
    terms["back"] = (q[due], weight * (1.0 - 12.0 * late * late))
    return terms


def draw(world: World, timeline: Timeline, slots: Slots, max_len: int | None) -> Clicks:
    """Draws each user's labels in time order, and makes clicked impressions real in `slots`."""
    t, n = timeline, len(timeline.shown_row)
    shown = _Shown(world, t, slots)
    organic, ordinal = slots.organic[slots.place], slots.impressions[slots.place] - 1
    turns = np.argsort(ordinal, kind="stable")
    ends = np.cumsum(np.bincount(ordinal))
    width = len(ends) + 1
    clicks = np.zeros(
        len(t.profile["age"]) * width, np.int64
    )  # of user r before impression k, at r · width + k
    out = Clicks(np.zeros(n, bool), np.zeros(n, np.int64), np.zeros(n), np.zeros(n))
    for k, turn in enumerate(np.split(turns, ends[:-1])):
        row = t.shown_row[turn] * width
        g, offset = ragged(slots.place[turn] - slots.first[turn])
        e = slots.first[turn][g] + offset
        real = np.flatnonzero(slots.real[e])
        g, e = g[real], e[real]
        terms = _terms(world, slots, shown, g, turn[g], e)
        out.visible[turn] = organic[turn] + clicks[row + k]
        sums = {name: np.bincount(g[q], x, len(turn)) for name, (q, x) in terms.items()}
        out.logit[turn] = shown.base[turn] + _logit(world, sums)
        if max_len is not None:
            rank = slots.organic[e] + clicks[row[g] + slots.impressions[e]]
            kept = rank > (out.visible[turn] - max_len)[g]
            sums = {name: np.bincount(g[q], x * kept[q], len(turn)) for name, (q, x) in terms.items()}
            out.logit_at_length[turn] = shown.base[turn] + _logit(world, sums)
        label = t.chance[turn] * (1.0 + w.exp(-out.logit[turn])) < 1.0
        out.label[turn] = label
        clicks[row + k + 1] = clicks[row + k] + label
        slots.real[slots.place[turn]] = label
    return out
