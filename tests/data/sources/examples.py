"""What a store holds, read back as raw values: one `Example` per impression."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from suan_jax.data.assembly import assemble, join
from suan_jax.data.store import Store
from suan_jax.schema import OOV, PAD, SPLITS


@dataclasses.dataclass(frozen=True)
class Example:
    """An impression as a model would see it; values are raw texts, None where missing, "?" where unknown.

    A value of a table of buckets is its id. `history` has a tuple per event, the oldest first, with the
    event's age in seconds, None where unknown, as its last entry.
    """

    user: str
    split: str
    time: int
    label: int
    history: tuple[tuple, ...]
    features: dict


def examples(store: Store, max_len: int = 1000) -> list[Example]:
    """All impressions of a store, in its order."""
    names = {table: _names(store, table) for table in store.schema.tables}
    users = dict(store.raw_users().select("index", "raw").iter_rows())
    found = []
    for index in range(store.num_blocks):
        block = store.block(index)
        batch, user, _ = assemble(join([block]), np.arange(len(block.time))[:, None], max_len)
        for row in range(len(block.time)):
            columns = [
                [names[f.table](value) for value in batch.history[f.name][row]] for f in store.schema.history
            ]
            ages = [
                int(age) if timed else None
                for age, timed in zip(batch.history_age[row], batch.history_timed[row], strict=True)
            ]
            length = int(batch.history_mask[row].sum())
            features = {
                f.name: _value(names[f.table], np.asarray(batch.group(group)[f.name][row]).reshape(-1))
                for group in ("candidate", "context", "profile")
                for f in store.schema.group(group)
            }
            found.append(
                Example(
                    users[int(user[row])],
                    SPLITS[block.split[row]],
                    int(block.time[row]),
                    int(block.label[row]),
                    tuple(zip(*columns, ages, strict=True))[:length],
                    features,
                )
            )
    return found


def write_rows(path: pathlib.Path, columns: Sequence[str], rows: Sequence[dict], header: str = "") -> None:
    """A CSV file of these rows, whose lacking values are empty; `header` replaces the columns' names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(str(row.get(column, "")) for column in columns) for row in rows]
    path.write_text("\n".join([header or ",".join(columns), *lines]) + "\n")


def change_row(path: pathlib.Path, row: int, text: str) -> None:
    """Replaces a row, counted from 1 below the header."""
    lines = path.read_text().split("\n")
    lines[row] = text
    path.write_text("\n".join(lines))


def _names(store: Store, table: str):
    if table not in store.vocabularies:
        return int
    raw = dict(store.vocabulary(table).select("id", "raw").iter_rows())
    return lambda value: {PAD: None, OOV: "?"}.get(int(value), raw.get(int(value)))


def _value(name, ids: np.ndarray):
    return name(ids[0]) if len(ids) == 1 else [name(value) for value in ids if value != PAD]
