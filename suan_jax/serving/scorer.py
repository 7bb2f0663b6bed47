"""Scores of raw requests by the model of a work directory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.special import expit

from suan_jax.batch import Batch
from suan_jax.config import MeshConfig
from suan_jax.errors import UserError, shown
from suan_jax.evaluation.metrics import correct_for_down_sampling
from suan_jax.models.model import Model, Variables
from suan_jax.paths import path_of
from suan_jax.serving.ids import log_encoders
from suan_jax.serving.request import EncodedUser, Raw, RequestEncoder, User, in_parts, whole_seconds
from suan_jax.training.compilation import enable_compilation_cache
from suan_jax.training.restore import restore_learnt
from suan_jax.training.state import inference_variables


@dataclasses.dataclass(frozen=True)
class HistoryCache:
    """What `Scorer.encode` kept of a user's history; any number of candidates can be scored on it.

    Attributes:
      user: the user, with ids in place of raw values.
      arrays: what the model keeps, on its device.
      moment_refusal: why it holds for one moment only; empty if for every later one.
      checkpoint: what tells the checkpoint, whose model made it, from others.
      requests: turns raw requests into batches.
    """

    user: EncodedUser
    arrays: Any
    moment_refusal: str
    checkpoint: str
    requests: RequestEncoder

    def at(self, time: float, context: Raw | None = None) -> HistoryCache:
        """The same history at a later moment, before which nothing was added to it.

        Args:
          time: the moment, seconds since 1970.
          context: features that the candidates share then; None for those of before.

        Raises:
          UserError: if the moment is earlier, the model's history states depend on it, `User.history` had an
            event between the two, which was left out of what is kept, or the context is not as described.
        """
        moment = whole_seconds(time, "time")
        if moment is None or moment < self.user.time:
            raise UserError(
                f"time is {shown(time)}, expected {self.user.time} or later, when the history was encoded"
            )
        if moment != self.user.time and self.moment_refusal:
            raise UserError(f"a kept history holds for one moment: {self.moment_refusal}")
        if self.user.next_time is not None and moment > self.user.next_time:
            raise UserError(
                f"time is {shown(time)}, expected at most {self.user.next_time}, the time of an event that "
                "lay ahead when the history was encoded: encode it again"
            )
        shared = self.user.shared if context is None else self.requests.shared(context)
        return dataclasses.replace(self, user=dataclasses.replace(self.user, time=moment, shared=shared))

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(x.nbytes for x in jax.tree.leaves(self.arrays))


class Scorer:
    """Scores candidates as evaluation does: the same checkpoint, ids, events and correction.

    Safe under threads. The model lives on the first device.

    Attributes:
      model: the model.
      variables: what it learnt.
      requests: turns raw requests into batches.
      negative_rate: share of the negatives that it was trained on, for which probabilities are put right.
    """

    def __init__(self, workdir: str | Path):
        """Loads a work directory: its best checkpoint (the newest if no metric chooses) and vocabularies.

        Raises:
          UserError: if the directory holds no run or no sound checkpoint, or its log is not there.
        """
        enable_compilation_cache()
        setup, state, self._checkpoint = restore_learnt(path_of(workdir), MeshConfig())
        self.model: Model = setup.model
        accumulator = setup.config.optimizer.embedding_initial_accumulator
        variables = jax.jit(inference_variables)(state, accumulator)
        self.variables: Variables = jax.device_put(variables, jax.devices()[0])
        encoders, scales = log_encoders(setup.log)
        data = setup.config.data
        self.requests = RequestEncoder(setup.log.schema, encoders, scales, data.max_len)
        self.negative_rate = data.negative_rate
        self._score = jax.jit(functools.partial(_logits, self.model))
        self._encode = jax.jit(self.model.encode)
        self._score_cached = jax.jit(functools.partial(_cached_logits, self.model))

    def encode(self, user: User) -> HistoryCache:
        """Passes over a user's history once, for any number of calls of `score`.

        An event that the user adds asks for a new one, and so does one of `user.history` at or after
        `user.time`, which is left out, once the time has come to read it.

        Raises:
          UserError: if the user is not as described, or the model cannot keep a history.
        """
        encoded = self.requests.user(user)
        arrays = self._encode(self.variables, self.requests.batch(encoded, [{}], 1))
        refusal = self.model.config.cache_moment_refusal()
        return HistoryCache(encoded, arrays, refusal, self._checkpoint, self.requests)

    def score(self, user: User | HistoryCache, candidates: Sequence[Raw]) -> np.ndarray:
        """Probabilities of a click, (M,) float32: all candidates on one pass over the user's history.

        Args:
          user: the user, or what `encode` kept: then no pass over the history is needed.
          candidates: each the raw values of the candidate's features, and those of the context and dense
            columns that it does not share with the others.

        Raises:
          UserError: if the request is not as described, or another checkpoint's model kept the history.
        """
        return expit(self.logits(user, candidates))

    def logits(self, user: User | HistoryCache, candidates: Sequence[Raw]) -> np.ndarray:
        """The same as log-odds, (M,) float32, put right for negative down-sampling."""
        if isinstance(user, HistoryCache):
            if user.checkpoint != self._checkpoint:
                raise UserError("the history was kept by the model of another checkpoint: encode it again")
            score = functools.partial(self._score_cached, self.variables, user.arrays)
            parts = self._scored(user.user, candidates, score, events=False)
        else:
            score = functools.partial(self._score, self.variables)
            parts = self._scored(self.requests.user(user), candidates, score, events=True)
        return correct_for_down_sampling(np.concatenate(list(parts)), self.negative_rate)

    def _scored(
        self,
        user: EncodedUser,
        candidates: Sequence[Raw],
        score: Callable[[Batch], jax.Array],
        events: bool,
    ) -> Iterator[np.ndarray]:
        for part, slots in in_parts(candidates):
            batch = self.requests.batch(user, part, slots, events)
            yield np.asarray(score(batch))[0, : len(part)]


def _logits(model: Model, variables: Variables, batch: Batch) -> jax.Array:
    return model.apply(variables, batch, train=False).logits


def _cached_logits(model: Model, variables: Variables, arrays: Any, batch: Batch) -> jax.Array:
    return model.apply_cached(variables, arrays, batch).logits
