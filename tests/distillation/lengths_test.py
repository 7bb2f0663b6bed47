import itertools

import jax
import numpy as np
import pytest

from suan_jax.config import DataConfig
from suan_jax.data.pipeline import train_iterator
from suan_jax.distillation.lengths import latest_events
from tests.data.random_log import random_log
from tests.random_batch import random_batch, random_schema
from tests.training.runs import assert_same_bits

_LOG = random_log(0, blocks=9)


def _batches(max_len):
    return list(itertools.islice(train_iterator(_LOG, DataConfig(max_len=max_len), 16, seed=3), 3))


@pytest.mark.parametrize("max_len", [1, 4, 12])
def test_a_cut_batch_is_the_batch_assembled_for_that_length(max_len):
    lengths = []
    for long, short in zip(_batches(12), _batches(max_len), strict=True):
        assert_same_bits(jax.jit(latest_events, static_argnums=1)(long, max_len), short)
        lengths.append(long.visible)
    assert np.max(lengths) > 4 and np.min(lengths) < 4  # some are cut, some are not


def test_candidates_of_a_row_keep_the_latest_of_what_they_see():
    batch = random_batch(0, random_schema(), rows=6, length=9, candidates=3, across_time=True)
    lengths = batch.history_mask.sum(1, keepdims=True)
    assert (batch.visible < lengths).any()
    cut = latest_events(batch, 4)
    for row, length in enumerate(lengths[:, 0]):
        first = max(length - 4, 0)
        for candidate, visible in enumerate(batch.visible[row]):
            seen = batch.history["item"][row, first : max(visible, first)]
            found = cut.history["item"][row, : cut.visible[row, candidate]]
            np.testing.assert_array_equal(found, seen)


def test_a_batch_of_that_length_stays():
    batch = random_batch(0, random_schema(), length=7)
    assert latest_events(batch, 7) is batch
