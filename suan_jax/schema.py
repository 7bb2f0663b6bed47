"""What a click log holds: feature names, the vocabularies they index, and the roles some play."""

from __future__ import annotations

import dataclasses

PAD = 0  # the id of an empty slot; its embedding row is zero and never trained
OOV = 1  # the id of a value outside the vocabulary

GROUPS = ("history", "candidate", "profile", "context")
SPLITS = ("train", "validation", "test")  # a split is stored as its index here


@dataclasses.dataclass(frozen=True)
class Feature:
    """A categorical feature.

    Attributes:
      name: column name, unique within its group.
      table: the vocabulary (and embedding table) it indexes; features of one table share rows.
      values: ids per example; above 1 the feature is multi-valued, padded with `PAD`.
    """

    name: str
    table: str
    values: int = 1


@dataclasses.dataclass(frozen=True)
class Schema:
    """The features of a click log.

    Attributes:
      tables: vocabulary name to its number of ids, `PAD` and `OOV` included.
      history: features of a behaviour (an event of the user's past).
      candidate: features of the candidate; those it shares with `history` have the same name.
      profile: features of the user.
      context: features of the impression (hour, tab, position).
      dense: names of the numeric columns, standardised, in the order of `Batch.dense`.
      item: the feature, in `history` and in `candidate`, that names the item.
      category: likewise the item's category, or None.
      action: the history feature that names the action taken, or None.
    """

    tables: dict[str, int]
    history: tuple[Feature, ...]
    candidate: tuple[Feature, ...]
    profile: tuple[Feature, ...] = ()
    context: tuple[Feature, ...] = ()
    dense: tuple[str, ...] = ()
    item: str = "item"
    category: str | None = None
    action: str | None = None

    def group(self, name: str) -> tuple[Feature, ...]:
        """The features of one of `GROUPS`."""
        return getattr(self, name)

    def to_dict(self) -> dict:
        """A JSON-ready form; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> Schema:
        """The inverse of `to_dict`."""
        groups = {name: tuple(Feature(**feature) for feature in data[name]) for name in GROUPS}
        return cls(**{**data, **groups, "dense": tuple(data["dense"])})
