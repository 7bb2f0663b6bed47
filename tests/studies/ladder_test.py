import jax
import pytest

from suan_jax.batch import blank_batch
from suan_jax.config import Config, DataConfig, SyntheticConfig
from suan_jax.data.log import open_log
from suan_jax.errors import UserError
from suan_jax.models import build, registered
from suan_jax.studies.config_fields import with_fields
from suan_jax.studies.ladder import MODELS, RUNGS, rule, rung
from suan_jax.training.summary import count_parameters

_LOG = open_log(DataConfig(synthetic=SyntheticConfig(users=512)))


def _body(model: str, index: int) -> int:
    config = with_fields(Config(model=registered()["suan"](head=(8,))), rung(model, index))
    built = build(config, _LOG.schema)
    variables = jax.eval_shape(built.init, jax.random.key(0), blank_batch(_LOG.schema, 1, 100))
    return count_parameters(built, variables["params"])["body"]


@pytest.mark.parametrize("index", RUNGS)
def test_rungs_of_all_models_are_of_about_equal_size(index):
    bodies = [_body(model, index) for model in MODELS if model != "light_suan"]
    assert max(bodies) / min(bodies) < {-2: 1.32, -1: 1.32, 2: 2.1, 4: 1.32}.get(index, 1.22)
    aims = (2.7e3, 4.2e3, 1e4, 3e4, 8.2e4, 2.2e5, 5.4e5, 1.5e6, 4.2e6, 1.2e7, 3.3e7, 8.2e7)
    aims += (2e8, 4.6e8, 1.06e9)
    assert 0.8 < bodies[0] / aims[RUNGS.index(index)] < 1.2


def test_light_suan_is_as_large_as_suan():
    for index in RUNGS:
        assert {**rung("light_suan", index), "model.name": "suan"} == rung("suan", index)


@pytest.mark.smoke
def test_rates_follow_the_rule():
    assert rung("suan", 2, 2e-3, 1.0) == {
        "model.name": "suan",
        "model.grade": 0,
        "optimizer.learning_rate": 2e-3,
        "optimizer.hidden_rate": 1.0,
    }
    assert rung("hstu", 8, 2e-3, 1.0)["optimizer.hidden_rate"] == pytest.approx(48 / 768, rel=1e-2)
    assert rung("suan", 11, 1e-3, 0.5)["optimizer.hidden_rate"] == pytest.approx(1 / 30**0.5, rel=1e-2)
    assert rung("suan", 0, 2e-3, 1.0)["optimizer.hidden_rate"] == 3.0
    assert rung("suan", -2, 2e-3, 1.0)["optimizer.hidden_rate"] == 3.0
    assert {rung("bst", index, 3e-3)["optimizer.learning_rate"] for index in RUNGS} == {3e-3}
    assert {rung("bst", index, 3e-3, 0.0)["optimizer.hidden_rate"] for index in RUNGS} == {1.0}
    assert rule(1e-3, 0.5).startswith(
        "learning rate of hidden matrices 0.001 * min((48 / width)^0.5, 3), of the others"
    )


@pytest.mark.smoke
def test_the_rate_of_all_dense_parameters_can_fall_instead():
    fields = rung("suan", 11, 1e-3, 0.5, hidden=False)
    assert fields["optimizer.learning_rate"] == pytest.approx(1e-3 / 30**0.5, rel=1e-2)
    assert "optimizer.hidden_rate" not in fields
    assert rule(1e-3, 0.5, hidden=False).startswith("learning rate 0.001 * min((48 / width)^0.5, 3); ")


@pytest.mark.parametrize(
    ("model", "index", "sentence"),
    [
        ("bts", 0, "'bts' is not on the ladder, the nearest is 'bst'"),
        ("bst", 13, "no rung 13 of bst, expected -2 to 12"),
    ],
)
def test_a_rung_that_is_not_there_is_refused(model, index, sentence):
    with pytest.raises(UserError, match=sentence):
        rung(model, index)
