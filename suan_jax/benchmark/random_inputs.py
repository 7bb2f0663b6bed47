"""Random ids and batches: full, never zeros, and skewed as real ids are."""

from __future__ import annotations

import numpy as np

from suan_jax.batch import Batch, blank_batch
from suan_jax.schema import GROUPS, OOV, Schema

_FIRST = OOV + 1
_SPREAD = 2_654_435_761  # a prime above any vocabulary, so that multiplying by it permutes the ids
_WEEK = 7 * 24 * 3600
_YOUNGEST, _OLDEST = 60.0, 1e7  # ages of events, seconds


def zipf_ids(random: np.random.Generator, num_ids: int, shape: tuple[int, ...]) -> np.ndarray:
    """Ids of a vocabulary, int32, of which the r-th most frequent comes with a probability of about 1 / r.

    Zipf's law, cut off at the vocabulary's end; frequent ids are spread over it, and neither `PAD` nor `OOV`
    is among them.

    Args:
      random: the source of randomness.
      num_ids: size of the vocabulary, at least 3.
      shape: of the result.
    """
    count = num_ids - _FIRST
    rank = np.minimum(np.exp(random.random(shape) * np.log(count)).astype(np.int64), count) - 1
    return (_FIRST + rank * _SPREAD % count).astype(np.int32)


def full_batch(
    random: np.random.Generator, schema: Schema, rows: int, max_len: int, candidates: int = 1
) -> Batch:
    """A batch whose histories fill all slots, labels of 30 % clicks; NumPy arrays.

    With several candidates a row holds a user's impressions across time: the last sees all events, the others
    at least half of them.

    Args:
      random: the source of randomness.
      schema: the features.
      rows: B.
      max_len: L.
      candidates: M.
    """
    batch = blank_batch(schema, rows, max_len, candidates)
    ids = {
        group: {
            feature.name: zipf_ids(
                random, schema.tables[feature.table], batch.group(group)[feature.name].shape
            )
            for feature in schema.group(group)
        }
        for group in GROUPS
    }
    age = np.exp(random.uniform(np.log(_YOUNGEST), np.log(_OLDEST), (rows, max_len)))
    history_age = -np.sort(-age.astype(np.int32), axis=1)
    visible = np.sort(random.integers(max_len // 2, max_len + 1, batch.visible.shape, np.int32), axis=1)
    visible[:, -1] = max_len
    # A second before the first event that the candidate does not see; the last one at the reference time.
    next_age = np.pad(history_age, ((0, 0), (0, 1)), constant_values=-1)
    return batch.replace(
        **ids,
        history_mask=np.ones_like(batch.history_mask),
        history_age=history_age,
        history_timed=np.ones_like(batch.history_timed),
        candidate_mask=np.ones_like(batch.candidate_mask),
        candidate_age=np.take_along_axis(next_age, visible, axis=1) + 1,
        visible=visible,
        dense=random.normal(size=batch.dense.shape).astype(np.float32),
        week_second=random.integers(0, _WEEK, rows, np.int32),
        label=(random.random(batch.label.shape) < 0.3).astype(np.float32),
    )
