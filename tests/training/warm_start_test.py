import dataclasses
import shutil

import jax
import numpy as np
import pytest

from suan_jax.config_dict import to_dict
from suan_jax.data.store_writer import StoreWriter
from suan_jax.errors import UserError
from suan_jax.files import write_json
from suan_jax.training.checkpoint import Checkpoints
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.setup import set_up
from suan_jax.training.state import inference_variables
from suan_jax.training.warm_start import warm_start
from tests.data.random_log import random_log, write_log
from tests.random_batch import random_schema
from tests.training.runs import assert_same_bits, tiny

_ITEMS = random_schema().tables["item"]
_NEW = 10  # items that the other store has besides
_PLACES = np.concatenate([[0, 1], 2 + np.random.default_rng(0).permutation(_ITEMS - 2 + _NEW)])
"""Where each item id of the one store lies in the other; the ids that follow are of new items."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm")
    write_log(folder / "yesterday", random_log(0, blocks=12), np.arange(_ITEMS))
    write_log(folder / "today", random_log(0, blocks=12), _PLACES)
    return folder


def _config(folder, store, *overrides):
    return tiny("train.eval_batch_size=32", "train.seed=5", *overrides, arguments=f"store={folder / store}")


@pytest.fixture(scope="module")
def trained(folder):
    """Of yesterday's run: its setup, and the state in its work directory, where no number is a fresh one."""
    config = _config(folder, "yesterday")
    setup = set_up(config)
    random = np.random.default_rng(1)

    def shake(leaf):
        if not jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating):
            return leaf
        return leaf + random.uniform(0.01, 0.3, leaf.shape).astype(leaf.dtype)

    state = jax.tree.map(shake, setup.fresh_state()).replace(step=jax.numpy.int32(20))
    # Some rows were not trained.
    accumulators = {name: values.at[4::5].set(0.01) for name, values in state.accumulators.items()}
    state = state.replace(accumulators=accumulators)
    (folder / "run").mkdir()
    write_json(folder / "run" / "config.json", to_dict(config))
    checkpoints = Checkpoints(folder / "run" / "checkpoints")
    checkpoints.save(state, {"log": setup.log.fingerprint}, {}, to_dict(config))
    checkpoints.close()
    return setup, state


def _started(folder, store, *overrides):
    setup = set_up(_config(folder, store, *overrides))
    return setup, warm_start(setup.fresh_state(), setup, folder / "run")


def _of_ids(tables, setup):
    """Tables without the rows that follow the last id."""
    return {lookup.table: tables[lookup.table][: lookup.rows] for lookup in setup.model.lookups}


def test_on_the_same_store_nothing_is_lost(folder, trained):
    _, expected = trained
    setup, state = _started(folder, "yesterday")
    for field in ("params", "batch_stats", "constants"):
        assert_same_bits(getattr(state, field), getattr(expected, field))
    for field in ("tables", "accumulators"):
        assert_same_bits(_of_ids(getattr(state, field), setup), _of_ids(getattr(expected, field), setup))
    assert int(state.step) == 0
    assert not any(leaf.any() for leaf in jax.tree.leaves(state.opt_state))
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == setup.shardings()


def test_on_a_store_whose_vocabulary_grew_and_moved_the_evaluation_is_the_same(folder, trained):
    setup, expected = trained
    today, state = _started(folder, "today")
    fresh = today.fresh_state()
    here, there = state.tables["item"], expected.tables["item"]
    np.testing.assert_array_equal(here[_PLACES[:_ITEMS]], there[:_ITEMS])
    np.testing.assert_array_equal(
        state.accumulators["item"][_PLACES[:_ITEMS]], expected.accumulators["item"][:_ITEMS]
    )
    new = _PLACES[_ITEMS:]
    np.testing.assert_array_equal(here[new], fresh.tables["item"][new])
    np.testing.assert_array_equal(state.accumulators["item"][new], fresh.accumulators["item"][new])
    before = Evaluation(setup).scores(expected, "test")
    after = Evaluation(today).scores(state, "test")
    np.testing.assert_array_equal(after.logit, before.logit)
    np.testing.assert_array_equal(after.label, before.label)


def test_rows_stay_trained_or_untrained_under_another_initial_accumulator(folder, trained):
    setup, expected = trained
    other, state = _started(folder, "yesterday", "optimizer.embedding_initial_accumulator=0.5")
    before = inference_variables(expected, setup.config.optimizer.embedding_initial_accumulator)
    after = inference_variables(state, other.config.optimizer.embedding_initial_accumulator)
    assert_same_bits(_of_ids(after["tables"], other), _of_ids(before["tables"], setup))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("model.name=suan",), r"/run is a run of the model 'din', expected 'suan'"),
        (("model.embedding_width=8",), r"/run is of another model: \d+ arrays differ, first "),
        (("model.head=(9,)",), r"/run is of another model: \d+ arrays differ, first batch_stats/head/"),
    ],
)
def test_another_model_is_refused(folder, trained, overrides, sentence):
    with pytest.raises(UserError, match=r"config\.init_from=.*" + sentence):
        _started(folder, "yesterday", *overrides)


def test_tables_without_raw_values_must_be_as_large(folder, trained, tmp_path):
    log = random_log(0, blocks=12)
    schema = dataclasses.replace(log.schema, tables={**log.schema.tables, "shop": 16})
    with StoreWriter(tmp_path / "other", schema, source="random") as writer:
        for block in log.blocks:
            writer.write(block)
    setup = set_up(_config(tmp_path, "other"))
    with pytest.raises(UserError, match=r"config.init_from: table shop has 15 ids there and 16 here"):
        warm_start(setup.fresh_state(), setup, folder / "run")


def test_what_holds_no_run_is_refused(folder, trained, tmp_path):
    setup, state = trained
    with pytest.raises(UserError, match=rf"config.init_from: {tmp_path} is not a work directory"):
        warm_start(state, setup, tmp_path)
    shutil.copy(folder / "run" / "config.json", tmp_path)
    with pytest.raises(UserError, match=rf"config.init_from: {tmp_path} holds no sound checkpoint"):
        warm_start(state, setup, tmp_path)
