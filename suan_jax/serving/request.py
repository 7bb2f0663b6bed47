"""Requests in raw values, and the batches that they become: one user's history and M candidates."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from suan_jax.batch import Batch, blank_batch, without_ids
from suan_jax.data.assembly import event_age, week_second
from suan_jax.data.blocking import Scale
from suan_jax.data.vocabulary import Encoder, encode_column
from suan_jax.errors import UserError, nearest, shown
from suan_jax.schema import Feature, Schema
from suan_jax.serving.ids import raw_series

TIME = "time"
"""What an event calls its own time, beside its features."""

SLOTS = (1, 8, 64, 256, 1024)
"""Candidates are padded to one of these numbers, so that few programs serve all; more are scored in parts."""

_PROFILE = "user (profile)"  # JSON's name, and Python's
_FARTHEST = 1e12  # standard deviations, whose cube float32 still holds
_LATEST = 100_000_000_000  # seconds since 1970, in the year 5138; milliseconds are beyond it from 1973 on
_NAME = 60  # characters of an unknown name that the nearest known one is looked for by

Raw = Mapping[str, Any]
"""Feature name to a raw value, a list of them for a feature of several; what is missing or None is `PAD`."""


@dataclasses.dataclass(frozen=True)
class User:
    """What is known of a user at the moment of a request; ids are raw, as in the log before preparation.

    Attributes:
      time: the moment, seconds since 1970.
      history: what the user did, in any order: each the history's features and `time`, seconds since 1970,
        None or missing where unknown. Events of unknown time come first; events at or after the moment are
        left out, as in training.
      profile: the profile's features.
      context: features of the impression and dense columns that all candidates share; a candidate may have
        its own instead.
    """

    time: float
    history: Sequence[Raw] = ()
    profile: Raw = dataclasses.field(default_factory=dict)
    context: Raw = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Context:
    """Context features and dense columns of n rows.

    Attributes:
      ids: context feature to ids, (n,) or (n, V).
      dense: (n, D) float32, standardised.
    """

    ids: dict[str, np.ndarray]
    dense: np.ndarray


@dataclasses.dataclass(frozen=True)
class EncodedUser:
    """A user's latest events, at most `max_len`, and profile as ids.

    Attributes:
      time: the moment of the request, whole seconds since 1970.
      event: history feature to ids, (n,) or (n, V), in time order.
      event_time: (n,) int64 seconds since 1970; 0 where unknown.
      event_timed: (n,) bool, False where unknown.
      next_time: of the first event that was left out, as it is at or after `time`; None if there is none.
      profile: profile feature to ids, (1,) or (1, V).
      shared: what all candidates share.
    """

    time: int
    event: dict[str, np.ndarray]
    event_time: np.ndarray
    event_timed: np.ndarray
    next_time: int | None
    profile: dict[str, np.ndarray]
    shared: Context


@dataclasses.dataclass(frozen=True)
class RequestEncoder:
    """Turns requests into batches.

    Attributes:
      schema: the features.
      encoders: table to its encoder.
      scales: dense column to its scale.
      max_len: L, events of a history.
    """

    schema: Schema
    encoders: Mapping[str, Encoder]
    scales: Mapping[str, Scale]
    max_len: int

    def __post_init__(self):
        if TIME in {feature.name for feature in self.schema.history}:
            raise UserError(f"the log has a history feature {TIME!r}, which is how an event tells its time")

    def user(self, user: User) -> EncodedUser:
        """A user's events and profile as ids.

        Raises:
          UserError: if the user is not as described.
        """
        if not isinstance(user, User):
            raise UserError(f"the user is a {type(user).__name__}, expected a suan_jax.serving.User")
        moment = whole_seconds(user.time, "time")
        if moment is None:
            raise UserError("time is missing, expected the moment of the request in seconds since 1970")
        known = [feature.name for feature in self.schema.history]
        timed, later = [], []
        for event in _mappings(user.history, "history", {*known, TIME}):
            time = whole_seconds(event.get(TIME), "history: time")
            if time is None or time < moment:
                timed.append((time, event))
            else:
                later.append(time)
        # A stable sort: events of one second, and those without a time, stay in the order given.
        timed.sort(key=lambda pair: -math.inf if pair[0] is None else pair[0])
        timed = timed[-self.max_len :]
        times, events = [time for time, _ in timed], [event for _, event in timed]
        profile = {feature.name for feature in self.schema.profile}
        return EncodedUser(
            time=moment,
            event=self._ids(self.schema.history, events, "history"),
            event_time=np.array([time or 0 for time in times], np.int64),
            event_timed=np.array([time is not None for time in times], bool),
            next_time=min(later, default=None),
            profile=self._ids(self.schema.profile, _mappings([user.profile], _PROFILE, profile), _PROFILE),
            shared=self.shared(user.context),
        )

    def shared(self, context: Raw) -> Context:
        """What all candidates share, one row.

        Raises:
          UserError: if it is not as described.
        """
        names = {*(feature.name for feature in self.schema.context), *self.schema.dense}
        return self._context(_mappings([context], "context", names), "context")

    def batch(self, user: EncodedUser, candidates: Sequence[Raw], slots: int, events: bool = True) -> Batch:
        """One row with a user's history and candidates, NumPy arrays.

        Args:
          user: the user.
          candidates: at most `slots` of them, each the candidate's features, and its own of the context and
            dense columns.
          slots: M; those without a candidate are pads.
          events: whether the ids of the events are there, or none of them, as a history cache has them.

        Raises:
          UserError: if a candidate is not as described.
        """
        schema, count = self.schema, len(candidates)
        names = {feature.name for feature in (*schema.candidate, *schema.context)} | {*schema.dense}
        candidates = _mappings(candidates, "candidates", names)
        batch = blank_batch(schema, 1, self.max_len, slots)
        length = len(user.event_time)
        batch.history_mask[0, :length] = True
        batch.history_timed[0, :length] = user.event_timed
        batch.history_age[0, :length] = event_age(user.time, user.event_time, user.event_timed)
        batch.candidate_mask[0, :count] = True
        batch.visible[0, :] = length
        batch.week_second[:] = week_second(np.int64(user.time))
        for name, ids in user.event.items():
            batch.history[name][0, :length] = ids
        for name, ids in user.profile.items():
            batch.profile[name][:] = ids
        for name, ids in self._ids(schema.candidate, candidates, "candidates").items():
            batch.candidate[name][0, :count] = ids
        own = self._context(candidates, "candidates")
        for name, ids in own.ids.items():
            given = [name in raw for raw in candidates]
            batch.context[name][0, :count] = user.shared.ids[name]
            batch.context[name][0, :count][given] = ids[given]
        given = np.array([[name in raw for name in schema.dense] for raw in candidates], bool)
        batch.dense[0, :count] = np.where(given, own.dense, user.shared.dense)
        if not events:
            batch = without_ids(batch)
        return batch

    def _context(self, rows: Sequence[Raw], where: str) -> Context:
        dense = np.zeros((len(rows), len(self.schema.dense)), np.float32)
        for index, name in enumerate(self.schema.dense):
            column = raw_series(None, [row.get(name) for row in rows], False, f"{where}: {name}")
            dense[:, index] = self.scales[name].apply(column)
            far = np.abs(dense[:, index]) > _FARTHEST
            if far.any():
                raise UserError(
                    f"{where}: {name} is {column[int(far.argmax())]}, expected a number less than "
                    f"{_FARTHEST:.0e} standard deviations from the log's mean"
                )
        return Context(self._ids(self.schema.context, rows, where), dense)

    def _ids(self, features: tuple[Feature, ...], rows: Sequence[Raw], where: str) -> dict[str, np.ndarray]:
        """Ids of features, (n,) or (n, V) int32."""
        result = {}
        for feature in features:
            encoder, several = self.encoders[feature.table], feature.values > 1
            values = [row.get(feature.name) for row in rows]
            column = raw_series(encoder, values, several, f"{where}: {feature.name}")
            result[feature.name] = encode_column(encoder, column, feature.values)
        return result


def in_parts(candidates: Sequence[Raw]) -> Iterator[tuple[Sequence[Raw], int]]:
    """Candidates in parts, each with the number of slots that it takes.

    Raises:
      UserError: if there is none.
    """
    if isinstance(candidates, str | bytes) or not isinstance(candidates, Sequence):
        raise UserError(f"candidates is a {type(candidates).__name__}, expected a list")
    if not candidates:
        raise UserError("candidates is empty, expected at least one")
    for start in range(0, len(candidates), SLOTS[-1]):
        part = candidates[start : start + SLOTS[-1]]
        yield part, next(slots for slots in SLOTS if slots >= len(part))


def parse_request(body: Any) -> tuple[User, Sequence[Raw]]:
    """A request as JSON has it: time, candidates, and, if there are any, history, user (profile) and context.

    Raises:
      UserError: if it is not of that form; values are looked at when they are encoded.
    """
    if not isinstance(body, Mapping):
        raise UserError(
            f"the request is a {type(body).__name__}, expected an object with time and candidates"
        )
    names = ("time", "candidates", "history", "user", "context")
    if unknown := sorted(map(str, body.keys() - set(names))):
        raise UserError(f"the request has {shown(unknown[0])}, expected some of {', '.join(names)}")
    if "candidates" not in body:
        raise UserError("candidates is missing, expected a list")
    user = User(
        time=body.get("time"),
        history=body.get("history", ()),
        profile=body.get("user", {}),
        context=body.get("context", {}),
    )
    return user, body["candidates"]


def _mappings(values: Any, where: str, names: set[str]) -> list[Raw]:
    """The values, each of which must be a mapping with some of these names."""
    if isinstance(values, Mapping | str | bytes) or not isinstance(values, Iterable):
        raise UserError(f"{where} is a {type(values).__name__}, expected a list")
    values = list(values)
    for value in values:
        if not isinstance(value, Mapping):
            raise UserError(f"{where} has a {type(value).__name__}, expected names with values")
        if not value.keys() <= names:
            other = sorted(map(str, value.keys() - names))[0]
            near = nearest(other[:_NAME], names)
            hint = f", the nearest is {near!r}" if near else ", and the log has none there"
            raise UserError(f"{where} has {shown(other)}, which is no feature there{hint}")
    return values


def whole_seconds(value: Any, where: str) -> int | None:
    """A moment in whole seconds, rounded down, as stores keep them; None if it is missing.

    Args:
      value: seconds since 1970.
      where: how to name it in a complaint.

    Raises:
      UserError: if it is no number, or too large for seconds.
    """
    if value is None:
        return None
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and abs(value) < _LATEST:
        return math.floor(value)
    raise UserError(f"{where} is {shown(value)}, expected seconds since 1970")
