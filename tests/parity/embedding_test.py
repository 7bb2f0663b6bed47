"""The mean of a multi-valued feature against FuxiCTR's MaskedAveragePooling."""

import numpy as np

from suan_jax.batch import blank_batch
from suan_jax.layers.embedding import batch_rows, feature_lookups
from suan_jax.schema import PAD, Feature, Schema
from tests.parity.carried import assert_same, fuxictr_layers, normal, torch

layers = fuxictr_layers()
SCHEMA = Schema(
    tables={"item": 9, "tag": 12},
    history=(Feature("item", "item"),),
    candidate=(Feature("item", "item"),),
    profile=(Feature("tags", "tag", values=4),),
)


def test_mean_of_the_values_that_are_there():
    random = np.random.default_rng(0)
    ids = random.integers(1, 12, (6, 4)) * (np.arange(4) < np.array([4, 0, 1, 3, 2, 4])[:, None])
    batch = blank_batch(SCHEMA, 6, 1).replace(profile={"tags": ids.astype(np.int32)})
    lookups = [lookup for lookup in feature_lookups(SCHEMA, 5) if lookup.group == "profile"]

    def apply(rows):
        return batch_rows(lookups, batch, {"tag": rows.reshape(-1, 5)})["profile"]["tags"]

    # FuxiCTR tells a pad by its row of zeros.
    valid = torch.from_numpy((ids != PAD)[..., None])
    assert_same(apply, lambda rows: layers.MaskedAveragePooling()(rows * valid), normal(1, 6, 4, 5))
