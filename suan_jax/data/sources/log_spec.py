"""How users describe their own click log: the dataclasses of a spec file, and reading one."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

from suan_jax.errors import UserError

TIME_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # ticks per second; "datetime" beside them
ACTION = "action"  # the history feature made from the click of an earlier impression


@dataclasses.dataclass(frozen=True, kw_only=True)
class Categorical:
    """Raw values with a vocabulary.

    Attributes:
      name: the column, and the feature.
      table: vocabulary, shared by all features that name it; None is the column's own.
      min_count: occurrences below which a value is out of vocabulary; None takes the spec's.
    """

    name: str
    table: str | None = None
    min_count: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiValued(Categorical):
    """Several raw values per row, in a list column or in one text.

    Attributes:
      values: most values kept per row, the first ones.
      separator: what stands between the values of a text; None for a list column.
    """

    values: int
    separator: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hashed:
    """Raw values hashed into a fixed number of ids, for columns with too many values to list.

    Attributes:
      name: the column, and the feature.
      ids: number of ids, two of them reserved.
      table: as in `Categorical`.
    """

    name: str
    ids: int
    table: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bucketed:
    """A number cut into quantiles of the train period, read like a categorical value.

    Attributes:
      name: the column, and the feature.
      buckets: number of quantiles.
      table: as in `Categorical`.
    """

    name: str
    buckets: int = 10
    table: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numeric:
    """A number, standardised with its mean and deviation in the train period; not for histories.

    Attributes:
      name: the column, and the feature.
      log1p: whether it becomes sign(x) log(1 + |x|) first.
    """

    name: str
    log1p: bool = False


Column = Categorical | MultiValued | Hashed | Bucketed | Numeric


@dataclasses.dataclass(frozen=True, kw_only=True)
class Events:
    """A table of behaviours of its own.

    Attributes:
      path: file or glob, relative to the raw folder, Parquet or CSV.
      user, item, time: its columns; None where they are called as in the impressions.
      time_unit: "s", "ms", "us", "ns" or "datetime"; None as in the impressions.
      action: column that names what the user did, a history feature; None without one.
    """

    path: str
    user: str | None = None
    item: str | None = None
    time: str | None = None
    time_unit: str | None = None
    action: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keyed:
    """A table with one row per user or item.

    Attributes:
      path: file or glob, relative to the raw folder, Parquet or CSV.
      key: its column that holds the user or the item; None where it is called as in the impressions.
    """

    path: str
    key: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Negatives:
    """Impressions without a click, drawn for each click of a log that has clicks only.

    Attributes:
      per_positive: how many for each click.
      kind: "uniform" over the items seen before the click, "popularity" in proportion to their clicks
        before it, or "recent", likewise over the `days` before it.
      days: length of that window.
      seed: seed of the draws.
    """

    per_positive: int = 1
    kind: str = "popularity"
    days: float = 7.0
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogSpec:
    """A user's own click log; a spec file's `get_spec()` returns one.

    Attributes:
      impressions: file or glob, relative to the raw folder, Parquet or CSV.
      user, item, time: columns of the impressions.
      time_unit: "s", "ms", "us" or "ns" since 1970, or "datetime" (UTC where no zone is given).
      label: a column of 0 and 1, or a comparison such as "rating >= 4"; None where every row is a click.
      candidate: features of the candidate, of the item table or else of the impressions; must name `item`.
      history: features of a past event, of the item table or else of its own table; must name `item`.
      profile: features of the user, of the user table or else of their first impression.
      context: features of the impression.
      category: the feature, in history and candidate, that is the item's category; None without one.
      events: a table of behaviours; None makes the user's earlier impressions their history.
      history_of: which of them, where `events` is None: "all", with the click as the feature "action", or
        "clicked".
      users, items: tables joined by key.
      test_from: first moment of the test period, ISO 8601, UTC where no zone is given; or
      test_share: share of the impressions, the last by time, that are the test period.
      validation_share: share of the impressions before it, the last by time, that are for validation.
      min_count: occurrences in the train period below which a value is out of vocabulary; None takes
        `launch/prepare.py --min_count`.
      negatives: negatives to draw for each click; None draws none.
      drop_repeats: whether of the impressions that agree in user, item and time only the first stays.
      ordered: whether the impressions are said to lie in time order, which is then checked.
    """

    impressions: str
    user: str
    item: str
    time: str
    candidate: tuple[Column, ...]
    history: tuple[Column, ...]
    label: str | None = None
    time_unit: str = "s"
    profile: tuple[Column, ...] = ()
    context: tuple[Column, ...] = ()
    category: str | None = None
    events: Events | None = None
    history_of: str = "all"
    users: Keyed | None = None
    items: Keyed | None = None
    test_from: str | None = None
    test_share: float | None = None
    validation_share: float = 0.1
    min_count: int | None = None
    negatives: Negatives | None = None
    drop_repeats: bool = False
    ordered: bool = False

    def group(self, name: str) -> tuple[Column, ...]:
        """The features of one of `schema.GROUPS`."""
        return getattr(self, name)


def load_spec(path: str | Path) -> LogSpec:
    """What `get_spec()` of a Python file returns.

    Raises:
      UserError: if there is no such file or function, it fails, or returns something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"--spec={path} is no file, expected a Python file with get_spec()")
    try:
        namespace = runpy.run_path(str(path))
        if "get_spec" not in namespace:
            raise UserError(f"{path} has no function get_spec(), expected one that returns a LogSpec")
        spec = namespace["get_spec"]()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} fails with {type(error).__name__}: {error}") from error
    if not isinstance(spec, LogSpec):
        raise UserError(f"{path}: get_spec() returns a {type(spec).__name__}, expected a LogSpec")
    return spec
