"""A block of users before any label is drawn: who they are, what they do, what they see."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from suan_jax.data.synthetic import world as w
from suan_jax.data.synthetic.world import World

BLOCK_USERS = 512
SPLIT_DAYS = ((0, 95), (95, 99), (99, 112))  # train, validation, test
_ROW = 1 << 32  # larger than any time of the log: row · _ROW + time sorts by row, then time
_EVENT_SHARE = np.array([1, 2, 4, 9])  # behaviours by activity level, in quarters of the mean
_SHOWN_SHARE = np.array([2, 3, 5, 6])  # impressions likewise
_HOURS = np.repeat(
    np.arange(24), [2, 1, 1, 1, 1, 1, 2, 3, 4, 4, 4, 5, 6, 5, 4, 4, 4, 5, 6, 7, 8, 8, 7, 3]
)  # the daily rhythm
_INTERESTS = 8


class Draws:
    """A stream of uniforms on [0, 1): halves of raw Philox words, which NumPy keeps fixed."""

    def __init__(self, seed: int, block: int):
        self._philox = np.random.Philox(key=np.array([seed, block], np.uint64))

    def __call__(self, *shape: int) -> np.ndarray:
        """The next uniforms, float64 of `shape`."""
        size = math.prod(shape)
        words = self._philox.random_raw(-(-size // 2)).astype("<u8", copy=False)
        return (words.view("<u4")[:size] * 2.0**-32).reshape(shape)


@dataclasses.dataclass
class Timeline:
    """Users U, organic behaviours E and impressions I of a block; times are seconds of the log.

    Behaviours happen at even seconds and impressions at odd ones; a click on an impression becomes a
    behaviour one second later, hence before the next impression.

    Attributes:
      profile: name to (U,).
      row: (E,) the behaviour's user, ascending; `time`, `item`, `action` go with it, by time within a user.
      shown_row: (I,) the impression's user, ascending; `shown_time`, `shown_item`, `context` likewise.
      chance: (I,) uniforms that decide the clicks.
    """

    profile: dict[str, np.ndarray]
    row: np.ndarray
    time: np.ndarray
    item: np.ndarray
    action: np.ndarray
    shown_row: np.ndarray
    shown_time: np.ndarray
    shown_item: np.ndarray
    context: dict[str, np.ndarray]
    chance: np.ndarray


def ragged(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and place within its row of each element, for rows of `counts` elements."""
    row = np.repeat(np.arange(len(counts)), counts)
    return row, np.arange(len(row)) - (np.cumsum(counts) - counts)[row]


def strata(draws: Draws, users: int) -> np.ndarray:
    """Each user's stratum; the first draw of a block, a permutation cut to its number of users."""
    return np.argsort(draws(BLOCK_USERS), kind="stable")[:users]


def joined() -> np.ndarray:
    """(512,) day on which a stratum's users join: day 0 for half, evenly spread for the rest."""
    return np.maximum(np.arange(BLOCK_USERS) // 4 - 64, 0) * w.DAYS // 64


def quota(impressions: int) -> np.ndarray:
    """(3, 512) impressions of each stratum in each split, the same in every block.

    They are in proportion to the days a user spends in the split and to the activity level, rounded so that a
    full block's sum is 512 `impressions`; so counts need no generation.
    """
    share = _SHOWN_SHARE[np.arange(BLOCK_USERS) % 4]
    days = np.stack([np.maximum(high - np.maximum(joined(), low), 0) for low, high in SPLIT_DAYS])
    total = np.cumsum((share * days).ravel())
    upto = total * (impressions * BLOCK_USERS) // total[-1]
    return np.diff(upto, prepend=0).reshape(days.shape)


def _second_of_day(u: np.ndarray) -> np.ndarray:
    x = u * len(_HOURS)
    hour = _HOURS[x.astype(np.int64)]
    second = ((x - np.floor(x)) * 3600.0).astype(np.int64)
    return hour * 3600 + np.where(hour == 23, second // 2, second)  # the last half hour is free for overruns


def _shown(draws: Draws, stratum: np.ndarray, impressions: int) -> tuple[np.ndarray, ...]:
    """Rows, times, positions and scenarios of impressions: requests of up to four, seconds apart."""
    counts = quota(impressions)[:, stratum]
    user, time, position, scenario = [], [], [], []
    for (low, high), count in zip(SPLIT_DAYS, counts, strict=True):
        row, place = ragged(count)
        first = np.maximum(joined()[stratum], low)[row]
        request = np.cumsum(place % 4 == 0) - 1
        requests = int(request[-1]) + 1 if len(request) else 0
        day, clock, scene = draws(3, requests)[:, request]
        gap = (draws(len(row)) * 25.0).astype(np.int64)
        start = first + (day * np.maximum(high - first, 1)).astype(np.int64)
        user.append(row)
        time.append(start * w.DAY + _second_of_day(clock) + (place % 4) * 30 + gap)
        position.append(place % 4)
        scenario.append((scene * w.CONTEXT["scenario"]).astype(np.int64))
    key = np.concatenate(user) * _ROW + (np.concatenate(time) | 1)
    order = np.argsort(key, kind="stable")
    step = 2 * np.arange(len(order))
    key = np.maximum.accumulate(key[order] - step) + step  # at least two seconds apart
    row = np.concatenate(user)[order]
    return row, key - row * _ROW, np.concatenate(position)[order], np.concatenate(scenario)[order]


def _interests(world: World, draws: Draws, shift: np.ndarray, session_row: np.ndarray, time: np.ndarray):
    """The subcategory that each session is about.

    A user holds eight interests with weights 1, 1/2, ..., 1/8; each is replaced once, at a random
    time or never, and each is 15 times stronger in the first fifth of its subcategory's period.
    """
    users = len(shift)
    u = draws(2, users, _INTERESTS)
    rank = (u * u * w.SUBCATEGORIES).astype(np.int64)
    subs = world.popular[(rank + shift[:, None]) % w.SUBCATEGORIES]
    change = draws(users, _INTERESTS) * (1.5 * w.DAYS * w.DAY)
    phase = draws(users, _INTERESTS)
    at = time[:, None]
    sub = np.where(at < change[session_row], subs[0][session_row], subs[1][session_row])
    turn = at / world.period[sub] + phase[session_row]
    strength = np.where(turn - np.floor(turn) < 0.2, 15.0, 1.0) / np.arange(1.0, _INTERESTS + 1.0)
    upto = np.cumsum(strength, axis=1)
    chosen = (draws(len(time))[:, None] * upto[:, -1:] >= upto[:, :-1]).sum(1)
    return sub[np.arange(len(sub)), chosen]


def _organic(
    world: World, draws: Draws, stratum: np.ndarray, shift: np.ndarray, events: int, shown: tuple
) -> tuple[np.ndarray, ...]:
    """Rows, times, items and actions of behaviours: sessions of five on average, about one interest."""
    shown_row, shown_time = shown
    users = len(stratum)
    active = w.DAYS - joined()[stratum]
    mean = events * _EVENT_SHARE[stratum % 4] * active / (4.0 * 0.75 * w.DAYS)
    row, place = ragged((mean * (0.5 + draws(users)) + 0.5).astype(np.int64))
    start = (place == 0) | (draws(len(row)) < 0.2)
    session = np.cumsum(start) - 1
    owner = row[start]

    # Half of the sessions precede an impression of the user by up to half an hour; the rest are anywhere.
    near, pick, clock, lead = draws(4, len(owner))
    day = joined()[stratum][owner] + (pick * active[owner]).astype(np.int64)
    opened = day * w.DAY + _second_of_day(clock)
    shown_count = np.bincount(shown_row, minlength=users)
    first_shown = np.cumsum(shown_count) - shown_count
    has = (near < 0.5) & (shown_count[owner] > 0)
    chosen = first_shown[owner] + (pick * shown_count[owner]).astype(np.int64)
    opened[has] = shown_time[chosen[has]] - 60 - (lead[has] * 1800.0).astype(np.int64)
    opened = np.sort(owner * _ROW + np.maximum(opened, 0)) - owner * _ROW

    gap = 20 + (draws(len(row)) * 140.0).astype(np.int64)
    gap[start] = 0
    elapsed = np.cumsum(gap)
    key = row * _ROW + (opened[session] + elapsed - elapsed[start][session] & ~1)
    time = np.maximum.accumulate(key) - row * _ROW

    about = _interests(world, draws, shift, owner, opened)[session]
    kind, where = draws(2, len(row))
    near_by = about // 32 * 32 + (where * 32.0).astype(np.int64)
    popular = world.popular[(where * where * w.SUBCATEGORIES).astype(np.int64)]
    sub = np.where(kind < 0.68, about, np.where(kind < 0.92, near_by, popular))
    item = world.draw_item(sub, time, *draws(2, len(row)))

    last = np.append(start[1:], True)[: len(row)]
    u = draws(len(row))
    buy = np.where(last, 0.3, 0.03)
    action = np.where(
        u < buy, w.BUY, np.where(u < buy + 0.1, w.CART, np.where(u > 0.93, w.FAVOURITE, w.VIEW))
    )
    return row, time, item, action


def generate(world: World, events: int, impressions: int, draws: Draws, users: int) -> Timeline:
    """Draws the timeline of a block's first `users` users."""
    stratum = strata(draws, users)
    profile = {name: (draws(users) * size).astype(np.int64) for name, size in w.PROFILE.items()}
    profile["activity"] = stratum % 4
    segment = profile["age"] * w.PROFILE["gender"] + profile["gender"]
    shift = segment * 21  # each segment has its own popular subcategories
    shown_row, shown_time, position, scenario = _shown(draws, stratum, impressions)
    row, time, item, action = _organic(world, draws, stratum, shift, events, (shown_row, shown_time))

    # Candidates: of a recent behaviour, of any earlier one, a sibling of a recent one, popular, or random.
    count = np.bincount(row, minlength=users)
    first = (np.cumsum(count) - count)[shown_row]
    past = np.searchsorted(row * _ROW + time, shown_row * _ROW + shown_time) - first
    kind, pick, other, again = draws(4, len(shown_row))
    recent = np.maximum(past - 1 - (pick * pick * 12.0).astype(np.int64), 0)
    anchor = first + np.where((kind < 0.28) | (kind >= 0.62), recent, (pick * past).astype(np.int64))
    known = past > 0
    source = item[np.where(known, anchor, 0)] if len(item) else np.zeros(len(shown_row), np.int64)
    seen = world.subcategory(source)
    rank = (other * other * w.SUBCATEGORIES).astype(np.int64) + shift[shown_row]
    popular = world.popular[rank % w.SUBCATEGORIES]
    sub = np.where(kind < 0.62, seen, seen // 32 * 32 + (other * 32.0).astype(np.int64))
    sub = np.where(known & (kind < 0.8), sub, popular)
    sub = np.where(kind >= 0.92, (other * w.SUBCATEGORIES).astype(np.int64), sub)
    shown_item = world.draw_item(sub, shown_time, *draws(2, len(shown_row)))
    shown_item = np.where(known & (kind < 0.62) & (again < 0.2), source, shown_item)
    context = {"hour": shown_time // 3600 % 24, "scenario": scenario, "position": position}
    chance = draws(len(shown_row))
    return Timeline(profile, row, time, item, action, shown_row, shown_time, shown_item, context, chance)
