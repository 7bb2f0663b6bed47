"""DIN as a whole, from ids to probabilities, against the one assembled from FuxiCTR's layers."""

import jax
import numpy as np
import pytest

from suan_jax import models
from suan_jax.benchmark.random_inputs import full_batch
from suan_jax.config import Config
from suan_jax.models.din import Din
from suan_jax.schema import Feature, Schema
from tests.compiling import quick_jit
from tests.parity.carried import (
    REASON,
    assert_close,
    carry,
    carry_dense,
    carry_dice,
    carry_interest,
    carry_statistics,
    random_variables,
)

fuxictr_models = pytest.importorskip("suan_jax.benchmark.fuxictr_models", reason=REASON)

ITEM = (Feature("item", "item"), Feature("category", "category"))
SCHEMA = Schema(
    tables={"item": 40, "category": 9, "user": 12},
    history=ITEM,
    candidate=ITEM,
    profile=(Feature("user", "user"),),
)
ROWS, LENGTH = 16, 6


def carry_head(theirs, params, stats):
    """Carries our head over: [state ‖ profile ‖ candidate] is the order of both."""
    steps = list(theirs.mlp)
    for index in range((len(steps) - 2) // 3):
        dense, norm, dice = steps[3 * index : 3 * index + 3]
        carry_dense(dense, params[f"dense_{index}"])
        carry(norm.weight, params[f"norm_{index}"]["scale"])
        carry(norm.bias, params[f"norm_{index}"]["bias"])
        carry_statistics(norm, stats[f"norm_{index}"])
        carry_dice(dice, params[f"dice_{index}"], stats[f"dice_{index}"])
    carry_dense(steps[-2], params["logit"])


@pytest.mark.parametrize("train", [True, False])
def test_probabilities(train):
    definition = Din(embedding_width=4, head=(12, 8), attention_hidden=(10, 5))
    model = models.build(Config(model=definition), SCHEMA)
    batch = full_batch(np.random.default_rng(0), SCHEMA, ROWS, LENGTH)
    variables = random_variables(model, batch)
    variables["params"]["head"]["logit"]["kernel"] *= 20  # so that examples differ
    theirs = fuxictr_models.of(definition, SCHEMA, LENGTH, plain=False).train(train)
    params, stats = variables["params"], variables["batch_stats"]
    for name, rows in SCHEMA.tables.items():
        carry(theirs.embedding.embedding_layers[name].weight, variables["tables"][name][:rows])
    carry_interest(theirs.attention, params["attention"], stats["attention"])
    carry_head(theirs.head, params["head"], stats["head"])

    @quick_jit
    def probability(variables, batch):
        output, _ = model.apply(variables, batch, train=train, mutable=["batch_stats"])
        return jax.nn.sigmoid(output.logits)

    expected = theirs(fuxictr_models.inputs(batch))["y_pred"]
    assert expected.std() > 0.05
    assert_close(probability(variables, batch), expected)
