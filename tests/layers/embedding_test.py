import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.layers import embedding
from suan_jax.schema import OOV, PAD
from tests.random_batch import random_batch, random_schema

_SCHEMA = random_schema()
_LOOKUPS = embedding.feature_lookups(_SCHEMA, 4)


@pytest.fixture(scope="module")
def tables():
    return embedding.init_tables(jax.random.key(0), _LOOKUPS, 0.3)


def _row(table, ids):
    """The mean over the values of one event that are not pads."""
    ids = [i for i in np.atleast_1d(ids) if i != PAD]
    return np.mean([table[i] for i in ids], axis=0) if ids else np.zeros(table.shape[1])


@pytest.mark.smoke
def test_every_feature_is_read_from_its_table(tables):
    batch = random_batch(0, _SCHEMA, candidates=2)
    batch.history["tags"] = (
        jnp.asarray(batch.history["tags"]).at[:, ::2, 1:].set(PAD)
    )  # fewer values than there may be
    rows = embedding.gather(_LOOKUPS, tables, batch)
    for lookup in _LOOKUPS:
        ids = np.asarray(batch.group(lookup.group)[lookup.feature])
        table = np.asarray(tables[lookup.table])
        got = np.asarray(rows[lookup.group][lookup.name])
        for place in np.ndindex(got.shape[:-1]):
            np.testing.assert_allclose(got[place], _row(table, ids[place]), rtol=1e-5, atol=1e-7)


def test_pads_are_zero_whatever_their_row_holds(tables):
    batch = random_batch(1, _SCHEMA)
    garbled = {name: table.at[PAD].set(9.0) for name, table in tables.items()}
    before, after = (embedding.gather(_LOOKUPS, t, batch) for t in (tables, garbled))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_tables_start_with_rows_for_pads_and_unknown_ids_at_zero(tables):
    for lookup in _LOOKUPS:
        table = tables[lookup.table]
        assert table.shape[0] % embedding.ROW_MULTIPLE == 0 and table.shape[0] >= lookup.rows
        assert not table[: OOV + 1].any()
        assert np.std(table[OOV + 1 :]) == pytest.approx(0.3, rel=0.1)


def test_the_gradient_of_a_row_is_the_sum_over_its_uses(tables):
    batch = random_batch(2, _SCHEMA)
    ids = np.asarray(batch.history["item"])
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(*ids.shape, 4)), jnp.float32)

    def loss(tables):
        return jnp.sum(weights * embedding.gather(_LOOKUPS, tables, batch)["history"]["item"])

    expected = np.zeros(tables["item"].shape)
    np.add.at(expected, ids[ids != PAD], np.asarray(weights)[ids != PAD])
    np.testing.assert_allclose(jax.grad(loss)(tables)["item"], expected, rtol=1e-5, atol=1e-6)
