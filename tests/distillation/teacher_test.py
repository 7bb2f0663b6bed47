"""Teachers of other logs."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from suan_jax.config_dict import to_dict
from suan_jax.distillation.setup import set_up_offline
from suan_jax.distillation.teacher import check_schema
from suan_jax.errors import UserError
from suan_jax.files import read_json, write_json
from suan_jax.schema import Feature
from suan_jax.training.checkpoint import Checkpoints
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.setup import set_up
from suan_jax.training.state import inference_variables
from tests.data.random_log import random_log, write_log
from tests.distillation.tiny_distill import tiny
from tests.random_batch import random_schema
from tests.training import runs
from tests.training.runs import assert_same_bits

_ITEMS = random_schema().tables["item"]
_NEW = 10  # items that today's store has besides
_PLACES = np.concatenate([[0, 1], 2 + np.random.default_rng(0).permutation(_ITEMS - 2 + _NEW)])
"""Where each of yesterday's item ids lies today; the ids that follow are of new items."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Yesterday's store and a teacher of it with random weights, and today's store."""
    folder = tmp_path_factory.mktemp("teacher")
    log = random_log(0, blocks=12)
    write_log(folder / "yesterday", log, np.arange(_ITEMS))
    write_log(folder / "today", random_log(0, blocks=12), _PLACES)
    write_log(folder / "other", log, np.arange(_ITEMS), shop=99)
    config = runs.tiny(
        "train.eval_batch_size=32", "model.head=(6,)", arguments=f"store={folder / 'yesterday'}"
    )
    setup = set_up(config)
    random = np.random.default_rng(1)

    def shake(leaf):
        if not jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating):
            return leaf
        return leaf + random.uniform(0.01, 0.3, leaf.shape).astype(leaf.dtype)

    state = jax.tree.map(shake, setup.fresh_state())
    untrained = {name: values.at[4::5].set(0.01) for name, values in state.accumulators.items()}
    state = state.replace(accumulators=untrained)
    (folder / "run").mkdir()
    write_json(folder / "run" / "config.json", to_dict(config))
    checkpoints = Checkpoints(folder / "run" / "checkpoints")
    checkpoints.save(state, {"log": setup.log.fingerprint}, {}, to_dict(config))
    checkpoints.close()
    tables = inference_variables(state, 0.01)["tables"]
    return folder, Evaluation(setup).scores(state, "test").logit, tables


def _taught(folder, store):
    config = tiny("train.eval_batch_size=32", arguments=f"store={folder / store}")
    return set_up_offline(config, folder / "run")


def _scores(setup):
    return Evaluation(setup.teacher).scores(setup.teacher_state, "test").logit


def test_on_its_own_log_it_scores_as_it_did(folder, capsys):
    setup = _taught(folder[0], "yesterday")
    np.testing.assert_array_equal(_scores(setup), folder[1])
    assert_same_bits(setup.teacher_state.tables, folder[2])  # what steps read
    assert capsys.readouterr().err.count("has not finished: its checkpoint of step 0 teaches") == 1


def test_on_a_log_whose_vocabulary_grew_and_moved_it_scores_the_same(folder, capsys):
    setup = _taught(folder[0], "today")
    np.testing.assert_array_equal(_scores(setup), folder[1])
    told = capsys.readouterr().err
    assert f"was trained on another log, the store at {folder[0] / 'yesterday'}: ids" in told
    assert f"unknown to it: {_NEW} of {_ITEMS + _NEW} item ids" in told
    table = setup.teacher_state.tables["item"]
    np.testing.assert_array_equal(table[_PLACES[_ITEMS:]], np.tile(table[1], (_NEW, 1)))


def test_a_table_without_raw_values_must_be_as_large(folder):
    with pytest.raises(UserError, match=r"the teacher .*run: table shop has 15 ids there and 99 here, and "):
        _taught(folder[0], "other")


def test_another_synthetic_world_is_refused(folder, tmp_path):
    (tmp_path / "run").mkdir()
    config = runs.tiny()
    write_json(tmp_path / "run" / "config.json", to_dict(config))
    setup = set_up(config)
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    checkpoints.save(setup.fresh_state(), {"log": setup.log.fingerprint}, {}, to_dict(config))
    checkpoints.close()
    for name in ("seed", "items"):
        sentence = rf"another synthetic world: config.data.synthetic.{name} is 2048, exp"
        with pytest.raises(UserError, match=sentence):
            set_up_offline(tiny(f"data.synthetic.{name}=2048"), tmp_path / "run")


def test_a_teacher_whose_config_was_altered_is_refused(folder, tmp_path):
    shutil.copytree(folder[0] / "run", tmp_path / "run")
    content = read_json(tmp_path / "run" / "config.json")
    content["data"]["negative_rate"] = 0.01
    write_json(tmp_path / "run" / "config.json", content)
    sentence = r"config.json is not what its checkpoint was trained by \(data.negative_rate: 1.0 != 0.01"
    with pytest.raises(UserError, match=sentence):
        set_up_offline(
            tiny("train.eval_batch_size=32", arguments=f"store={folder[0] / 'yesterday'}"), tmp_path / "run"
        )


def test_what_holds_no_teacher_is_refused(tmp_path):
    with pytest.raises(UserError, match=rf"the teacher {tmp_path}: {tmp_path} is not a work directory"):
        set_up_offline(tiny(), tmp_path)


@pytest.mark.smoke
def test_a_teacher_of_other_features_is_refused_and_they_are_named():
    schema = random_schema()
    check_schema(schema, dataclasses.replace(schema, tables={**schema.tables, "item": 9}))  # it may grow
    check_schema(schema, dataclasses.replace(schema, history=schema.history[::-1]))  # it reads by name
    other = dataclasses.replace(
        schema,
        candidate=(*schema.candidate[:-1], Feature("brand", "shop")),
        profile=(Feature("city", "city"), Feature("interests", "category", values=3)),
        dense=("distance", "price"),
        action=None,
    )
    with pytest.raises(UserError) as caught:
        check_schema(schema, other)
    told = str(caught.value)
    for part in (
        "candidate brand: table shop there and missing here",
        "candidate shop: missing there and table shop here",
        "profile interests: table category, 3 values there and table category, 2 values here",
        "dense price: column 1 there and column 0 here",
        "role action: None there and action here",
    ):
        assert part in told
    assert "history" not in told and "profile city" not in told


def test_of_many_features_that_differ_the_first_are_named_and_the_rest_counted():
    schema = random_schema()
    other = dataclasses.replace(schema, dense=tuple(f"measure_{place}" for place in range(60)))
    with pytest.raises(UserError, match=r"dense measure_0: .*; and \d\d more\)$") as caught:
        check_schema(schema, other)
    assert len(str(caught.value)) < 600
