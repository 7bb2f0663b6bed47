"""The synthetic log as blocks of users."""

from __future__ import annotations

import dataclasses

import numpy as np

from suan_jax.config import SyntheticConfig
from suan_jax.data.block import Block
from suan_jax.data.synthetic import click, slots, timeline, world
from suan_jax.data.synthetic.block_cache import cached
from suan_jax.data.synthetic.timeline import BLOCK_USERS, SPLIT_DAYS
from suan_jax.data.synthetic.world import World
from suan_jax.errors import UserError
from suan_jax.schema import SPLITS, Feature, Schema

FORM = "synthetic-v1"
_FIRST_ID = 2  # after PAD and OOV


def _schema(items: int) -> Schema:
    shared = {
        "item": items,
        "category": world.CATEGORIES,
        "subcategory": world.SUBCATEGORIES,
        "brand": world.CATEGORIES * world.BRANDS_PER_CATEGORY,
        "price": world.PRICES,
    }
    sizes = {**shared, "action": len(world.ACTIONS), **world.PROFILE, **world.CONTEXT}

    def features(names) -> tuple[Feature, ...]:
        return tuple(Feature(name, name) for name in names)

    return Schema(
        tables={name: size + _FIRST_ID for name, size in sizes.items()},
        history=features((*shared, "action")),
        candidate=features(shared),
        profile=features(world.PROFILE),
        context=features(world.CONTEXT),
        dense=("freshness",),
        category="category",
        action="action",
    )


class SyntheticLog:
    """The embedded click log, a `Log`: blocks of 512 users, each a function of (config, index) alone.

    Attributes:
      form: name of the frozen form; a change of any number it produces changes the name.
      schema: features of the log; ids are 2 + index.
      num_blocks: number of blocks.
      fingerprint: the form; the rest is in the config.
    """

    form = fingerprint = FORM

    def __init__(self, config: SyntheticConfig, max_len: int | None = None):
        """Prepares the log; generates nothing.

        Args:
          config: its sizes and seed.
          max_len: history length for which `truth["at_length"]` is computed; None omits it.

        Raises:
          UserError: if a size is out of range.
        """
        least = {"users": 1, "events": 0, "impressions": 1, "items": 4 * world.SUBCATEGORIES, "seed": 0}
        for name, low in least.items():
            value = getattr(config, name)
            if not low <= value < 2**31 - _FIRST_ID:
                raise UserError(
                    f"data.synthetic.{name} is {value}, expected {low} to {2**31 - _FIRST_ID - 1}"
                )
        if max_len is not None and max_len < 1:
            raise UserError(f"data.max_len is {max_len}, expected at least 1")
        self._config, self._max_len = config, max_len
        self._world = World(config.seed, config.items)
        self.schema = _schema(config.items)
        self.num_blocks = -(-config.users // BLOCK_USERS)

    def _users(self, index: int) -> int:
        return min(BLOCK_USERS, self._config.users - index * BLOCK_USERS)

    def __str__(self) -> str:
        return "the synthetic log"

    def counts(self, split: str) -> np.ndarray:
        """Impressions of a split in each block, (num_blocks,) int64, from the quota of `timeline`."""
        quota = timeline.quota(self._config.impressions)[SPLITS.index(split)]
        counts = np.full(self.num_blocks, quota.sum())
        last = self.num_blocks - 1
        draws = timeline.Draws(self._config.seed, last)
        counts[last] = quota[timeline.strata(draws, self._users(last))].sum()
        return counts

    def block(self, index: int) -> Block:
        """The users [512 · index, 512 · (index + 1)), with all they did and were shown.

        Raises:
          IndexError: if there is no such block.
          UserError: if `block_cache` cannot be written.
        """
        if not 0 <= index < self.num_blocks:
            raise IndexError(f"block {index} of {self.num_blocks}")
        return cached(self._name(), index, lambda: self._generate(index))

    def _name(self) -> str:
        """One per content of blocks, fit for a folder."""
        sizes = (f"{name}={value}" for name, value in dataclasses.asdict(self._config).items())
        return ",".join([self.form, *sizes, f"max_len={self._max_len}"])

    def _generate(self, index: int) -> Block:
        config, users = self._config, self._users(index)
        draws = timeline.Draws(config.seed, index)
        t = timeline.generate(self._world, config.events, config.impressions, draws, users)
        s = slots.arrange(self._world, t)
        clicks = click.draw(self._world, t, s, self._max_len)
        by_time = s.by_time[s.real[s.by_time]]
        user = index * BLOCK_USERS + np.arange(users)
        truth = {"unlimited": clicks.logit.astype(np.float32)}
        if self._max_len is not None:
            truth["at_length"] = clicks.logit_at_length.astype(np.float32)
        fresh = self._world.freshness(t.shown_item, t.shown_time)
        ends = np.array([high * world.DAY for _, high in SPLIT_DAYS[:-1]])
        return Block(
            user=user,
            rank=(user + 0.5) / config.users,
            event_offsets=_offsets(s.row[by_time], users),
            impression_offsets=_offsets(t.shown_row, users),
            profile=_ids(t.profile),
            event={**_item_ids(s, by_time), **_ids({"action": s.action[by_time]})},
            event_time=world.START + s.time[by_time],
            event_timed=np.ones(len(by_time), bool),
            candidate=_item_ids(s, s.place),
            context=_ids(t.context),
            dense=fresh.astype(np.float32)[:, None],
            time=world.START + t.shown_time,
            label=clicks.label.astype(np.uint8),
            split=np.searchsorted(ends, t.shown_time, side="right").astype(np.uint8),
            visible=clicks.visible,
            truth=truth,
        )


def _ids(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: (values + _FIRST_ID).astype(np.int32) for name, values in columns.items()}


def _item_ids(s: slots.Slots, at: np.ndarray) -> dict[str, np.ndarray]:
    sub = s.sub[at]
    columns = {"item": s.item[at], "category": sub // 4, "subcategory": sub}
    return _ids({**columns, "brand": s.brand[at], "price": s.price[at]})


def _offsets(row: np.ndarray, users: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(row, minlength=users))])
