"""The click: the part of the logit that reads the history, and labels drawn from the whole, in time order."""

from __future__ import annotations

import dataclasses

import numpy as np

from suan_jax.data.synthetic import world as w
from suan_jax.data.synthetic.slots import Slots
from suan_jax.data.synthetic.timeline import Timeline
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
    x = age / half_life  # from here on in place: fresh memory costs more than the arithmetic
    x *= x
    x += 1.0
    return np.divide(1.0, x, out=x)


def _logit(world: World, sums: dict[str, np.ndarray]) -> np.ndarray:
    """Parts (b), (c) and (d) from their sums over behaviours."""
    p = world.weights
    z = p.short * sums["short"] / (1.0 + sums["short"]) + p.long * sums["long"] / (0.4 + sums["all"])
    z = z + p.back * sums["back"] / (0.3 + sums["about"])
    return z + p.chain * sums["step"] / (0.25 + sums["steps"]) - p.fatigue * sums["run"] / (3.0 + sums["run"])


@dataclasses.dataclass
class _Shown:
    """Columns of impressions (n,); the half-lives and the period are seconds."""

    base: np.ndarray
    item: np.ndarray
    sub: np.ndarray
    brand: np.ndarray
    time: np.ndarray
    short: np.ndarray
    long: np.ndarray
    period: np.ndarray

    def take(self, index: np.ndarray | slice) -> _Shown:
        """The impressions at `index`."""
        return _Shown(**{name: column[index] for name, column in vars(self).items()})


def _shown(world: World, timeline: Timeline, slots: Slots) -> _Shown:
    own, time = slots.place, timeline.shown_time
    profile = {name: values[timeline.shown_row] for name, values in timeline.profile.items()}
    return _Shown(
        base=world.base_logit(profile, timeline.context, slots.item[own], slots.price[own], time),
        item=slots.item[own],
        sub=slots.sub[own],
        brand=slots.brand[own],
        time=time,
        short=SHORT[profile["age"]],
        long=LONG[profile["activity"]],
        period=world.period[slots.sub[own]],
    )


Terms = dict[str, tuple[np.ndarray | slice, np.ndarray]]


def _terms(world: World, slots: Slots, shown: _Shown, g: np.ndarray, e: np.ndarray) -> Terms:
    """Terms of the sums over pairs of an impression and an earlier behaviour of its department.

    Args:
      world: the world.
      slots: the block's slots.
      shown: impressions.
      g: (P,) index of the impression, ascending.
      e: (P,) slot of the behaviour, ascending within an impression.

    Returns:
      Name of the sum to (pairs (Q,), terms (Q,)). A step's pair is the earlier of its two behaviours.
    """
    age = (shown.time[g] - slots.time[e]).astype(np.float64)
    sub, sub_c, action = slots.sub[e], shown.sub[g], slots.action[e]
    cat, cat_c = sub >> 2, sub_c >> 2
    long = _kernel(age, shown.long[g])
    long *= MATCH[action]
    terms = {"all": (slice(None), long)}

    # Steps: neighbours of the department that differ in category.
    second = np.flatnonzero((cat[1:] != cat[:-1]) & (g[1:] == g[:-1])) + 1
    code = (cat[second - 1] & 7) * 8 + (cat[second] & 7)
    recent = _kernel(age[second], RECENT)
    terms["steps"] = (second - 1, recent)
    terms["step"] = (second - 1, recent * world.follow[cat_c[second], code])

    # Matches: behaviours of the candidate's category.
    q = np.flatnonzero(cat == cat_c)
    g, e, age, action = g[q], e[q], age[q], action[q]
    same, buy = sub[q] == sub_c[q], action == w.BUY
    last_buy = np.full((2, len(shown.item)), -1)  # of the category, of the subcategory
    last_buy[0, g[buy]] = e[buy]  # of repeated indices the last, so the latest buy, stays
    last_buy[1, g[buy & same]] = e[buy & same]

    match = np.where(same, 1.0, 0.35) + 0.5 * (slots.brand[e] == shown.brand[g])
    match = match + (slots.item[e] == shown.item[g])
    match = match * np.where(same & (e <= last_buy[1, g]), 1.0 - world.weights.satiation, 1.0)
    terms["short"] = (q, match * MATCH[action] * _kernel(age, shown.short[g]))
    terms["long"] = (q, match * long[q])
    free = np.flatnonzero(e > last_buy[0, g])
    terms["run"] = (q[free], _kernel(age[free], RECENT))

    # Returns: behaviours of the candidate's subcategory within half a period of one period ago.
    late = age / shown.period[g] - 1.0
    due = np.flatnonzero(same & (late < 0.5) & (late >= -0.5))
    weight, late = RETURN[action[due]], late[due]
    terms["about"] = (q[due], weight)
    terms["back"] = (q[due], weight * (1.0 - 12.0 * late * late))
    return terms


def _pairs(slots: Slots, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (index into `turn`, slot) of an impression and a behaviour of its department before it."""
    count = slots.place[turn] - slots.first[turn]
    g = np.repeat(np.arange(len(turn)), count)
    e = np.arange(len(g)) + np.repeat(slots.first[turn] - (np.cumsum(count) - count), count)
    real = np.flatnonzero(slots.real[e])
    return g[real], e[real]


def draw(world: World, timeline: Timeline, slots: Slots, max_len: int | None) -> Clicks:
    """Draws each user's labels in time order, and makes clicked impressions real in `slots`."""
    t, n = timeline, len(timeline.shown_row)
    organic, ordinal = slots.organic[slots.place], slots.impressions[slots.place] - 1
    turns = np.argsort(ordinal, kind="stable")
    ends = np.cumsum(np.bincount(ordinal))
    shown = _shown(world, t, slots).take(turns)  # each turn is a slice
    width = len(ends) + 1
    # Clicks of user r before impression k, at r · width + k: one axis, as a gather along two is slower.
    clicks = np.zeros(len(t.profile["age"]) * width, np.int64)
    out = Clicks(np.zeros(n, bool), np.zeros(n, np.int64), np.zeros(n), np.zeros(n))
    for k, turn in enumerate(np.split(turns, ends[:-1])):
        row = t.shown_row[turn] * width
        g, e = _pairs(slots, turn)
        of_turn = shown.take(slice(ends[k] - len(turn), ends[k]))
        terms = _terms(world, slots, of_turn, g, e)
        out.visible[turn] = organic[turn] + clicks[row + k]
        sums = {name: np.bincount(g[q], x, len(turn)) for name, (q, x) in terms.items()}
        out.logit[turn] = of_turn.base + _logit(world, sums)
        if max_len is not None:
            rank = slots.organic[e] + clicks[row[g] + slots.impressions[e]]
            kept = rank > (out.visible[turn] - max_len)[g]
            sums = {name: np.bincount(g[q], x * kept[q], len(turn)) for name, (q, x) in terms.items()}
            out.logit_at_length[turn] = of_turn.base + _logit(world, sums)
        label = t.chance[turn] * (1.0 + w.exp(-out.logit[turn])) < 1.0
        out.label[turn] = label
        clicks[row + k + 1] = clicks[row + k] + label
        slots.real[slots.place[turn]] = label
    return out
