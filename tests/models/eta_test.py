import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from suan_jax import models
from suan_jax.config import Config
from suan_jax.errors import UserError
from suan_jax.layers.tokens import concat, shared_names
from suan_jax.models.eta import Eta, hamming_distance, hash_codes
from tests.models.intermediates import gathered, returned_by
from tests.models.random_model import random_model
from tests.random_batch import random_batch, random_schema

SCHEMA = random_schema()
FEW = Eta(head=(8,), k=3, recent=2)


@pytest.mark.smoke
@pytest.mark.parametrize("bits", [1, 32, 100])
def test_distances_are_the_differing_bits_of_integer_codes(bits):
    rng = np.random.default_rng(0)
    q, k, projection = (
        rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 6), (2, 5, 6), (6, bits))
    )
    k[0, 0] = 0.0  # sign(0) is 1
    mask = rng.random((2, 3, 5)) < 0.7
    distance = hamming_distance(hash_codes(q, projection), hash_codes(k, projection), jnp.asarray(mask))
    q_bits, k_bits = ((x @ projection >= 0).astype(int) for x in (q, k))
    expected = np.where(mask, (q_bits[:, :, None] ^ k_bits[:, None]).sum(-1), bits + 1)
    np.testing.assert_array_equal(distance, expected)


def test_the_nearest_codes_are_retrieved_and_of_equals_the_most_recent():
    model, variables = random_model(dataclasses.replace(FEW, bits=4))  # few bits: many ties
    batch = random_batch(1, SCHEMA, candidates=3, lengths=[7, 7, 6, 4, 0], across_time=True)
    found, auxiliary = returned_by("search", model, variables, batch)
    assert auxiliary == {}
    rows = gathered(model, variables, batch)
    rows, batch, projection = jax.device_get((rows, batch, variables["constants"]["projection"]))
    features = (concat(rows[group], shared_names(SCHEMA)) for group in ("candidate", "history"))
    q_bits, k_bits = (np.asarray(x) @ projection >= 0 for x in features)
    ties = 0
    for b, m in np.ndindex(5, 3):
        seen = batch.visible[b, m]
        distance = (q_bits[b, m] != k_bits[b, :seen]).sum(-1)
        expected = sorted(range(seen), key=lambda slot: (distance[slot], -slot))[:3]
        np.testing.assert_array_equal(found.index_BxMxK[b, m, : len(expected)], expected)
        np.testing.assert_array_equal(found.mask_BxMxK[b, m], np.arange(3) < seen)
        ties += len(np.unique(distance)) < seen
    assert ties > 3


def test_a_restored_model_retrieves_the_same_events():
    batch = random_batch(2, SCHEMA, rows=20, lengths=np.full(20, 7), candidates=2)
    model, variables = random_model(FEW)
    other = jax.jit(model.init)(jax.random.key(7), batch)
    restored = serialization.from_bytes(other, serialization.to_bytes(variables))

    def indices(variables):
        return returned_by("search", model, variables, batch)[0].index_BxMxK

    np.testing.assert_array_equal(indices(restored), indices(variables))
    # Without the constants it would not.
    assert (indices({**restored, "constants": other["constants"]}) != indices(variables)).any()
    assert "constants" not in variables["params"] and variables["constants"]["projection"].shape == (
        3 * 8,
        32,
    )


@pytest.mark.parametrize(("field", "value"), [("bits", 0), ("k", 0), ("grade", 2), ("dtype", "float16")])
def test_bad_settings_are_named(field, value):
    with pytest.raises(UserError, match=rf"config\.model\.{field} is '?{value}"):
        models.build(Config(model=Eta(**{field: value})), SCHEMA)
