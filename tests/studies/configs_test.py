import math

import pytest

from suan_jax import config_file
from suan_jax.studies.compare_config import check_comparison
from suan_jax.studies.ladder import RATE, rung
from suan_jax.studies.sweep import cells
from tests.readme import ROOT


def _cells(name: str, arguments: str = ""):
    config = config_file.load(f"{ROOT / 'configs' / name}.py:{arguments}")
    return config, [cell.config for cell in cells(config)]


@pytest.mark.parametrize("name", ["grades", "ablations", "rates"])
def test_every_size_sees_the_same_examples(name):
    config, found = _cells(name)
    assert (
        len({repr((run.data, run.train.epochs, run.train.steps, run.train.batch_size)) for run in found}) == 1
    )
    assert len({run.optimizer.learning_rate * run.optimizer.hidden_rate for run in found}) > 3
    assert "learning rate" in config.rule


def test_the_ladder_goes_as_high_as_it_is_asked_to():
    _, found = _cells("grades", "models=suan+loopctr,rungs=13,seeds=1,rate_power=0.0")
    assert len(found) == 26 and {run.model.grade for run in found} == {*range(6)} | {1}
    assert {(run.optimizer.learning_rate, run.optimizer.hidden_rate) for run in found} == {(RATE, 1.0)}
    more, fewer = _cells("grades", "rungs=4")[0].cells, _cells("grades", "rungs=3")[0].cells
    assert more[: len(fewer)] == fewer  # so that a work directory grows


@pytest.mark.parametrize(("name", "decades"), [("data_size", 3), ("joint", 2.5)])
def test_shares_are_nested_and_span_decades(name, decades):
    _, found = _cells(name)
    shares = sorted({run.data.train_fraction for run in found})
    assert math.log10(shares[-1] / shares[0]) == pytest.approx(decades, abs=0.01) and shares[-1] == 1
    assert {run.data.fraction_by for run in found} == {"user"}
    assert len(shares) == 2 * decades + 1


def test_ablations_switch_off_what_they_say():
    _, found = _cells("ablations")
    variants = {(run.model.rms_norm, run.model.time_bias, run.model.position_bias) for run in found}
    assert len(variants) == 4 and (True, True, True) in variants


@pytest.mark.parametrize("store", ["", "stores/kuairand_pure"])
def test_distillation_is_compared_at_the_ladder_s_rates(store):
    config = config_file.load(f"{ROOT / 'configs' / 'distill_study'}.py:store={store}")
    check_comparison(config)
    rates = [entry["optimizer.learning_rate"] for entry in config.entries.values()]
    assert rates[1] == rung("suan", 6, hidden=False)["optimizer.learning_rate"]  # grade 2, the teacher
    assert rates[2] == rung("suan", 4, hidden=False)["optimizer.learning_rate"]
    assert rates[0] * config.distillation.rate_factor == pytest.approx(rates[1])
    assert rates[0] == pytest.approx(RATE * 48 / 80 if store else RATE, rel=1e-3)
    assert set(rates[3:]) == {rates[0]}


@pytest.mark.parametrize("name", ["dilations", "pools", "lengths"])
def test_comparisons_differ_in_what_they_say_alone(name):
    config = config_file.load(f"{ROOT / 'configs' / name}.py")
    check_comparison(config)
    differ = {field for entry in config.entries.values() for field in entry}
    expected = {
        "dilations": {"model.name", "model.dilation"},
        "pools": {"model.pool", "model.absolute_position", "data.packing", "data.candidates"},
        "lengths": {"model.name", "data.max_len"},
    }
    assert differ == expected[name]
