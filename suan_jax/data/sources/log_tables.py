"""The tables that a log's spec names, and which of them holds a feature."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from suan_jax.data.sources.log_spec import Column, Events, LogSpec
from suan_jax.data.sources.raw_table import RawTable


@dataclasses.dataclass(frozen=True)
class LogTables:
    """The opened tables; a feature is read from the item or user table if that has its column.

    Attributes:
      impressions, events, items, users: the tables, None where the spec has none.
      item, user: the columns of the impressions, whose features are read as keys.
      items_key, users_key: the key columns of the joined tables.
      integer_items, integer_users: whether every table holds the key as an integer; else all compare text.
    """

    impressions: RawTable
    events: RawTable | None
    items: RawTable | None
    users: RawTable | None
    item: str
    user: str
    items_key: str
    users_key: str
    integer_items: bool
    integer_users: bool

    @classmethod
    def open(cls, raw: Path, spec: LogSpec) -> LogTables:
        """Opens all tables of a spec under the folder `raw`.

        Raises:
          UserError: if a file or a key column is missing.
        """
        main = RawTable.open(raw, spec.impressions)
        events = None if spec.events is None else RawTable.open(raw, spec.events.path)
        items = None if spec.items is None else RawTable.open(raw, spec.items.path)
        users = None if spec.users is None else RawTable.open(raw, spec.users.path)
        items_key = spec.items.key or spec.item if spec.items else spec.item
        users_key = spec.users.key or spec.user if spec.users else spec.user
        main.require([spec.user, spec.item, spec.time])
        item_keys, user_keys = [(main, spec.item)], [(main, spec.user)]
        if events is not None:
            names = event_columns(spec)
            events.require([names.user, names.item, names.time])
            item_keys.append((events, names.item))
            user_keys.append((events, names.user))
        for table, key, keys in ((items, items_key, item_keys), (users, users_key, user_keys)):
            if table is not None:
                table.require([key])
                keys.append((table, key))
        return cls(
            main,
            events,
            items,
            users,
            spec.item,
            spec.user,
            items_key,
            users_key,
            all(table.dtype(key).is_integer() for table, key in item_keys),
            all(table.dtype(key).is_integer() for table, key in user_keys),
        )

    def pieces(self, table: str, rows: int) -> list[LogTables]:
        """The tables again and again, each time with another piece of `table`, of at most `rows` rows."""
        return [dataclasses.replace(self, **{table: piece}) for piece in getattr(self, table).pieces(rows)]

    def item_key(self, column: str) -> pl.Expr:
        """A key column of items, in the one type in which all tables compare."""
        return pl.col(column).cast(pl.Int64 if self.integer_items else pl.String)

    def user_key(self, column: str) -> pl.Expr:
        """A key column of users, in the one type in which all tables compare."""
        return pl.col(column).cast(pl.Int64 if self.integer_users else pl.String)

    def has_item(self, column: Column) -> bool:
        """Whether a candidate, context or history feature is read from the item table."""
        return self.items is not None and column.name != self.item and column.name in self.items.columns

    def has_user(self, column: Column) -> bool:
        """Whether a profile feature is read from the user table."""
        return self.users is not None and column.name != self.user and column.name in self.users.columns

    def own(self, columns: Sequence[Column], by_user: bool = False) -> list[Column]:
        """Those features that neither a joined table holds nor the key itself is."""
        held, key = (self.has_user, self.user) if by_user else (self.has_item, self.item)
        return [column for column in columns if column.name != key and not held(column)]


def event_columns(spec: LogSpec) -> Events:
    """The columns of a spec's own events table, with what it leaves out taken from the impressions."""
    events = spec.events
    return dataclasses.replace(
        events,
        user=events.user or spec.user,
        item=events.item or spec.item,
        time=events.time or spec.time,
        time_unit=events.time_unit or spec.time_unit,
    )
