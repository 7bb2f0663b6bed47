import jax
import numpy as np
import pytest

from suan_jax.layers import embedding
from suan_jax.layers.unpacking import one_candidate_per_row
from tests.random_batch import random_batch, random_schema, single_example

_SCHEMA = random_schema()
_LOOKUPS = embedding.feature_lookups(_SCHEMA, 4)


@pytest.mark.smoke
@pytest.mark.parametrize("across_time", [False, True])
def test_each_row_is_the_example_of_one_candidate(across_time):
    batch = random_batch(0, _SCHEMA, candidates=3, across_time=across_time)
    tables = embedding.init_tables(jax.random.key(0), _LOOKUPS, 0.3)
    rows, flat = one_candidate_per_row(embedding.gather(_LOOKUPS, tables, batch), batch)
    jax.tree.map(np.testing.assert_array_equal, rows, embedding.gather(_LOOKUPS, tables, flat))
    for candidate in range(3):
        alone = single_example(batch, candidate)
        mine = jax.tree.map(lambda x, start=candidate: x[start::3], flat)
        seen = np.asarray(alone.history_mask)
        np.testing.assert_array_equal(mine.history_mask, seen)
        for name in batch.history:
            np.testing.assert_array_equal(mine.history[name][seen], alone.history[name][seen])
        # The reference time stays the row's, so ages are compared as gaps to the candidate.
        gaps = [np.asarray(b.history_age - b.candidate_age)[seen] for b in (mine, alone)]
        np.testing.assert_array_equal(*gaps)
        for name in ("candidate", "context", "profile", "label", "dense", "visible", "candidate_mask"):
            jax.tree.map(np.testing.assert_array_equal, getattr(mine, name), getattr(alone, name))
