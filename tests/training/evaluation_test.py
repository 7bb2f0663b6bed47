import dataclasses
import math

import jax
import numpy as np
import pytest

from suan_jax.evaluation import metrics
from suan_jax.schema import SPLITS
from suan_jax.training import setup as setting_up
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.setup import Setup, set_up
from tests.data.random_log import random_log
from tests.training.runs import tiny

_LOG = random_log(0, blocks=20)


@pytest.fixture(scope="module")
def setup():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setting_up, "open_log", lambda data: _LOG)
        return set_up(tiny("train.eval_batch_size=16"))


@pytest.fixture(scope="module")
def state(setup):
    """A state of which every third row of a table was trained."""
    state = setup.fresh_state()
    return state.replace(
        tables={name: 30 * table for name, table in state.tables.items()},
        accumulators={name: values.at[::3].add(0.5) for name, values in state.accumulators.items()},
    )


@pytest.fixture(scope="module")
def scores(setup, state):
    return Evaluation(setup).scores(state, "test")


def _with(setup: Setup, section: str, **values) -> Setup:
    changed = dataclasses.replace(getattr(setup.config, section), **values)
    return dataclasses.replace(setup, config=dataclasses.replace(setup.config, **{section: changed}))


def test_every_example_once_in_the_order_of_the_log(scores):
    chosen = [block.split == SPLITS.index("test") for block in _LOG.blocks]
    sequence = [
        np.repeat(np.arange(len(block.user)), np.diff(block.impression_offsets)) for block in _LOG.blocks
    ]
    pairs = list(zip(_LOG.blocks, sequence, chosen, strict=True))
    np.testing.assert_array_equal(
        scores.user, np.concatenate([block.user[rows][keep] for block, rows, keep in pairs])
    )
    np.testing.assert_array_equal(
        scores.label, np.concatenate([block.label[keep] for block, _, keep in pairs])
    )
    assert len(scores.logit) == len(scores.label) > 16
    assert len(scores.label) % 16, "the last batch is not padded"


@pytest.mark.parametrize("size", [7, 500])
def test_the_batch_size_does_not_matter(setup, state, scores, size):
    others = Evaluation(_with(setup, "train", eval_batch_size=size)).scores(state, "test")
    np.testing.assert_array_equal(others.user, scores.user)
    np.testing.assert_array_equal(others.label, scores.label)
    np.testing.assert_allclose(others.logit, scores.logit, rtol=1e-4, atol=1e-5)


def test_metrics_are_those_of_the_scores(setup, state, scores):
    result = Evaluation(setup).metrics(state, "test")
    assert result["evaluated_examples"] == len(scores.label)
    assert result["auc"] == metrics.auc(scores.label, scores.logit)
    assert result["gauc"] == metrics.gauc(scores.user, scores.label, scores.logit)


def test_down_sampling_is_put_right_in_scores_and_metrics(setup, state, scores):
    evaluation = Evaluation(_with(setup, "data", negative_rate=0.25))
    np.testing.assert_allclose(
        evaluation.scores(state, "test").logit, scores.logit + math.log(0.25), rtol=1e-6, atol=1e-6
    )
    assert evaluation.metrics(state, "test")["log_loss"] == pytest.approx(
        metrics.log_loss(scores.label, scores.logit + math.log(0.25))
    )


def test_rows_that_were_never_trained_are_not_read(setup, state, scores):
    """So an id that a fraction of the data has not seen needs no remapping: it reads as an unknown one."""

    def garble(table, accumulator):
        untrained = accumulator == setup.config.optimizer.embedding_initial_accumulator
        untrained = untrained.at[1].set(False)  # what they read instead
        return jax.numpy.where(untrained[:, None], 7.0, table)

    tables = {name: garble(table, state.accumulators[name]) for name, table in state.tables.items()}
    got = Evaluation(setup).scores(state.replace(tables=tables), "test")
    np.testing.assert_array_equal(got.logit, scores.logit)
    trained = {name: table.at[3].add(1.0) for name, table in state.tables.items()}
    assert (Evaluation(setup).scores(state.replace(tables=trained), "test").logit != scores.logit).any()
    unknown = {name: table.at[1].add(1.0) for name, table in state.tables.items()}
    assert (Evaluation(setup).scores(state.replace(tables=unknown), "test").logit != scores.logit).any()
