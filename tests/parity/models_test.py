"""Whole models, from ids to logits, against those assembled from FuxiCTR's layers."""

import jax
import numpy as np
import pytest

from suan_jax import models
from suan_jax.benchmark import fuxictr
from suan_jax.benchmark.random_inputs import full_batch
from suan_jax.config import Config
from suan_jax.layers import time_buckets
from suan_jax.models.bst import Bst
from suan_jax.models.din import Din
from suan_jax.schema import PAD, Feature, Schema
from tests.parity.carried import (
    REASON,
    assert_close,
    carry,
    carry_block,
    carry_dense,
    carry_dice,
    carry_interest,
    carry_statistics,
    random_variables,
    torch,
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


def set_up(definition):
    """Our model, its variables, a batch of full histories, and FuxiCTR's with the same tables and head."""
    model = models.build(Config(model=definition), SCHEMA)
    batch = full_batch(np.random.default_rng(0), SCHEMA, ROWS, LENGTH)
    variables = random_variables(model, batch)
    variables["params"]["head"]["logit"]["kernel"] *= 5  # so that examples differ
    theirs = fuxictr_models.of(definition, SCHEMA, LENGTH, plain=False)
    for name, rows in SCHEMA.tables.items():
        carry(theirs.embedding.embedding_layers[name].weight, variables["tables"][name][:rows])
    theirs.head.mlp[-1] = torch.nn.Identity()  # logits in place of probabilities
    carry_head(theirs.head, variables["params"]["head"], variables["batch_stats"]["head"])
    return model, variables, batch, theirs


def padded(batch):
    """The batch with histories of all lengths."""
    lengths = np.arange(ROWS)[:, None] % (LENGTH + 1)
    mask = np.arange(LENGTH) < lengths
    history = {name: np.where(mask, ids, PAD) for name, ids in batch.history.items()}
    return batch.replace(history=history, history_mask=mask, visible=lengths.astype(np.int32))


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


def compare(model, variables, batch, theirs, train):
    """Logits of both."""

    @jax.jit
    def logits(variables, batch):
        return model.apply(variables, batch, train=train, mutable=["batch_stats"])[0].logits

    expected = theirs.train(train)(fuxictr_models.inputs(batch))["y_pred"]
    assert expected.std() > 0.05
    assert_close(logits(variables, batch), expected)


@pytest.mark.parametrize("train", [True, False])
def test_din(train):
    definition = Din(embedding_width=4, head=(12, 8), attention_hidden=(10, 5))
    model, variables, batch, theirs = set_up(definition)
    carry_interest(theirs.attention, variables["params"]["attention"], variables["batch_stats"]["attention"])
    # In training FuxiCTR's Dice counts pads: see interest_test.py.
    compare(model, variables, batch if train else padded(batch), theirs, train)


def test_din_trained_with_the_same_optimizer_has_the_same_losses():
    definition = Din(embedding_width=4, head=(12, 8), attention_hidden=(10, 5))
    model, variables, batch, theirs = set_up(definition)
    theirs.head.mlp[-1] = torch.nn.Sigmoid()  # its loss is of probabilities
    carry_interest(theirs.attention, variables["params"]["attention"], variables["batch_stats"]["attention"])
    start, step = fuxictr.whole_table_adam(model)
    state, step, inputs = start(variables), jax.jit(step), fuxictr_models.inputs(batch)
    losses = []
    for _ in range(5):
        state, loss = step(state, batch)
        losses.append(float(loss))
        assert losses[-1] == pytest.approx(theirs.train_step(inputs).item(), abs=1e-4)
    assert losses[-1] < losses[0] - 1e-2


@pytest.mark.parametrize("train", [True, False])
def test_bst(train):
    # Theirs has positions where ours has time gaps: with the same ages in every row, a gap is a position.
    definition = Bst(embedding_width=4, head=(12, 8), layers=2, heads=3)
    model, variables, batch, theirs = set_up(definition)
    ages = np.array([4_000_000, 70_000, 3_000, 250, 40, 6], np.int32)
    batch = padded(batch).replace(history_age=np.tile(ages, (ROWS, 1)))
    buckets = np.asarray(time_buckets.bucket(np.append(ages, 0)))
    params = variables["params"]
    params["tokens"]["gap_table"] *= 3
    carry(theirs.position.weight, params["tokens"]["gap_table"][buckets])
    for index, block in enumerate(theirs.blocks.layers):
        carry_block(block, jax.tree.map(lambda leaf, index=index: leaf[index], params["blocks"]))
    compare(model, variables, batch, theirs, train)
