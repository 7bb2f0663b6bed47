import dataclasses
import itertools

import jax
import numpy as np
import pytest

from suan_jax.config import Config
from suan_jax.distillation.setup import set_up_offline, set_up_online
from suan_jax.distillation.teacher import logit_shift
from suan_jax.evaluation.metrics import correct_for_down_sampling
from suan_jax.layers.loss import log_loss
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.loop import train
from suan_jax.training.restore import restore_run
from suan_jax.training.setup import set_up
from suan_jax.training.sharding import place_batch
from suan_jax.training.state import inference_variables
from tests.distillation.tiny_distill import tiny
from tests.training import runs
from tests.training.runs import arrays, assert_same_bits, take_steps

_STEPS = 6
_ONLINE = "distillation.online=True"


def _batches(setup, count):
    items = itertools.islice(setup.train_iterator(), count)
    return [place_batch(setup.mesh, batch) for batch in items]


def _items(*overrides):
    """The states of student and teacher after some steps together, and the run."""
    setup = set_up_online(tiny(_ONLINE, *overrides))
    state, _ = take_steps(setup, setup.compile_step(), setup.fresh_state(), 0, _STEPS)
    return setup, state.items()


@pytest.fixture(scope="module")
def unweighted():
    return _items("distillation.weight=0")


@pytest.fixture(scope="module")
def weighted():
    return _items("distillation.weight=2")


def test_a_teacher_that_does_not_count_leaves_the_student_as_it_is_alone(unweighted):
    setup, items = unweighted
    own = {field.name: getattr(setup.config, field.name) for field in dataclasses.fields(Config)}
    alone = set_up(Config(**own))
    expected, _ = take_steps(alone, alone.compile_step(), alone.fresh_state(), 0, _STEPS)
    got = arrays(items["state"])
    assert got.keys() == arrays(expected).keys()
    for name, array in arrays(expected).items():
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_student_teaches_its_teacher_nothing(unweighted, weighted):
    assert_same_bits(weighted[1]["companion"], unweighted[1]["companion"])
    setup = unweighted[0].teacher
    step, state = setup.compile_step(), setup.fresh_state()
    for batch in _batches(unweighted[0], _STEPS):  # they are of its length, the longer one
        state, _ = step(state, batch)
    got = arrays(unweighted[1]["companion"])
    for name, array in arrays(state).items():
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_student_learns_from_it(unweighted, weighted):
    first, second = (arrays(items["state"].params) for _, items in (unweighted, weighted))
    assert max(np.abs(first[name] - second[name]).max() for name in first) > 1e-3


def test_an_online_teacher_has_a_learning_rate_of_its_own():
    setup, items = _items("distillation.rate_factor=0.25", "optimizer.multipliers=((r'bias$',0.5),)")
    slower = set_up_online(tiny(_ONLINE, "optimizer.multipliers=((r'bias$',0.125),('',0.25))")).teacher
    step, state = slower.compile_step(), slower.fresh_state()
    for batch in _batches(setup, _STEPS):
        state, _ = step(state, batch)
    got = arrays(items["companion"])
    for name, array in arrays(state).items():
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_equal_models_do_not_start_equal():
    teacher = ("distillation.teacher.head=(8,)", "distillation.teacher.embedding_width=4")
    state = set_up_online(tiny(_ONLINE, "distillation.max_len=0", *teacher)).fresh_state()
    one, other = (arrays(item.params) for item in state.items().values())
    assert [array.shape for array in one.values()] == [array.shape for array in other.values()]
    assert any((one[name] != other[name]).any() for name in one)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The work directory of a teacher of other widths, length and share of negatives."""
    workdir = tmp_path_factory.mktemp("offline") / "teacher"
    sizes = ("model.head=(6,)", "model.embedding_width=5", "data.max_len=11", "data.negative_rate=0.5")
    train(runs.tiny("train.steps=15", *sizes), workdir)
    return workdir


@pytest.fixture(scope="module")
def offline(teacher):
    return set_up_offline(tiny(f"distillation.teacher_from={teacher}"), teacher)


def test_an_offline_teacher_scores_as_its_evaluation_does(teacher, offline):
    setup, state = restore_run(teacher)
    expected = Evaluation(setup).scores(state, "test").logit
    got = Evaluation(offline.teacher).scores(offline.teacher_state, "test").logit
    np.testing.assert_array_equal(got, expected)
    assert np.std(got) > 0.01


def test_nothing_of_its_optimizer_is_held(offline):
    assert offline.teacher_state.opt_state is None and offline.teacher_state.key is None
    assert offline.abstract.items().keys() == {"state"}  # the student alone is saved


def test_a_step_takes_its_logits_from_its_own_batch(teacher, offline):
    batch = _batches(offline, 1)[0]
    assert batch.history_mask.shape[1] == 11
    setup, state = restore_run(teacher)
    variables = inference_variables(state, setup.config.optimizer.embedding_initial_accumulator)
    logits = setup.model.apply(variables, batch).logits + np.log(0.5)  # as it has half of the negatives
    _, metrics = offline.compile_step()(offline.fresh_state(), batch)
    assert float(metrics["teacher_log_loss"]) == pytest.approx(float(log_loss(logits, batch)), rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(float(metrics["log_loss"] + metrics["distillation_loss"]))


def test_its_logits_are_put_right_for_the_negatives_that_the_student_sees(offline):
    logits = np.linspace(-2, 2, 5)
    own = correct_for_down_sampling(logits, 0.5)
    for rate in (1.0, 0.25):
        config = tiny(f"data.negative_rate={rate}")
        shifted = logits + logit_shift(offline.teacher, config)
        np.testing.assert_allclose(correct_for_down_sampling(shifted, rate), own)


def test_its_activations_take_another_dtype_if_asked_to(teacher, offline):
    config = tiny(f"distillation.teacher_from={teacher}", "distillation.dtype=bfloat16")
    half = set_up_offline(config, teacher)
    assert half.teacher.config.model.dtype == "bfloat16"
    assert half.model.config.dtype == "float32"
    assert_same_bits(half.teacher_state.params, offline.teacher_state.params)
    got, expected = (
        Evaluation(setup.teacher).scores(setup.teacher_state, "test").logit for setup in (half, offline)
    )
    assert 0 < np.abs(got - expected).max() < 0.1
    assert jax.tree.leaves(half.teacher_state.params)[0].dtype == "float32"
