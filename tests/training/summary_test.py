import jax
import numpy as np
import pytest

from suan_jax.schema import SPLITS
from suan_jax.training import setup as setting_up
from suan_jax.training.clock import Clock
from suan_jax.training.setup import set_up
from suan_jax.training.summary import count_parameters, history_lengths, summarise
from tests.data.random_log import random_log
from tests.training.runs import tiny

_LOG = random_log(0, blocks=10)
_METRICS = {"auc": 0.7, "evaluated_examples": 30}


@pytest.fixture(scope="module", params=["din", "suan"])
def setup(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setting_up, "open_log", lambda data: _LOG)
        return set_up(tiny("train.batch_size=4", "train.steps=11", arguments=f"model={request.param}"))


def test_parameter_counts_add_up(setup):
    counts = count_parameters(setup.model, setup.abstract.params)
    dense = sum(leaf.size for leaf in jax.tree.leaves(setup.abstract.params))
    assert counts["dense"] == counts["body"] + counts["head"] == dense
    assert counts["body"] == counts["once"] + counts["recurrent"]
    assert counts["recurrent"] == 0
    assert counts["head"] == sum(leaf.size for leaf in jax.tree.leaves(setup.abstract.params["head"])) > 0
    # Ids as the schema counts them; the rows that round a table up are no parameters.
    tables = {lookup.vocabulary for lookup in setup.model.lookups}
    assert counts["embedding"] == 4 * sum(_LOG.schema.tables[name] for name in tables)
    assert counts["embedding"] < sum(table.size for table in setup.abstract.tables.values())


def test_what_a_loop_applies_again_is_recurrent(setup):
    params = {"head": {"kernel": np.zeros((2, 3))}, "loop": {"a": np.zeros(5)}, "tokens": np.zeros(7)}
    params["auxiliary"] = {"kernel": np.zeros(11)}  # of a loss that using the model does not need
    counts = count_parameters(setup.model, params)
    assert {name: counts[name] for name in ("dense", "head", "body", "once", "recurrent")} == {
        "dense": 18,
        "head": 6,
        "body": 12,
        "once": 7,
        "recurrent": 5,
    }


def test_history_lengths_are_those_of_the_test_split(setup):
    lengths = [np.minimum(block.visible[block.split == SPLITS.index("test")], 8) for block in _LOG.blocks]
    np.testing.assert_array_equal(history_lengths(setup), np.concatenate(lengths))


def test_a_runs_point(setup):
    clock = Clock(examples=40, seconds=2.0, trained=44)
    summary = summarise(setup, setup.abstract.params, 7, _METRICS, clock)
    definition = setup.config.model
    assert summary["flops_per_example"] == definition.flops_per_example(_LOG.schema, 8)
    assert summary["useful_flops"] == definition.useful_flops(_LOG.schema, history_lengths(setup))
    assert 0 < summary["useful_flops"] <= summary["flops_per_example"]
    assert summary["train_flops"] == 3 * summary["flops_per_example"] * 11 * 4  # backward costs two forwards
    assert summary["examples_per_second"] == 20.0
    expected = {
        "auc": 0.7,
        "evaluated_examples": 30,
        "split": "test",
        "examples": 44,
        "candidates_per_row": 1.0,
        "steps": 11,
        "evaluated_step": 7,
        "seconds": 2.0,
    }
    assert {name: summary[name] for name in expected} == expected
    assert not [name for name in summary if "loops" in name]
    assert summarise(setup, setup.abstract.params, 7, _METRICS, Clock())["examples_per_second"] is None
