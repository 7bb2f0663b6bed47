import re

import numpy as np
import pytest

from suan_jax.errors import UserError
from suan_jax.scaling import fit
from suan_jax.scaling.checks import checked_points, solve
from suan_jax.scaling.forms import CONSTANT, LOG, POWER
from suan_jax.scaling.judgement import akaike, hold_out, preferred
from tests.scaling import planted


def _fit(x, y, form="power", **options):
    return fit(x, y, form, **{"resamples": 100, **options})


@pytest.mark.smoke
def test_a_law_has_intervals_rivals_and_a_judgement():
    x, y = planted.auc()
    calls = []
    law = _fit(x, y, advance=calls.append)
    assert sum(calls) == 100
    for name, known in planted.AUC.items():
        each = law.parameters[name]
        assert each.low < known < each.high and each.low < each.value < each.high
        assert (each.low, each.high) == each.profile  # of 8 configurations
    assert law.r2 > 0.99
    assert [rival["form"] for rival in law.rivals] == ["constant", "log"]
    assert law.preferred == "power"
    assert law.held_out["sizes"] == 2 and len(law.held_out["points"]) == 6
    assert law.held_out["rmse"] < 0.2 * law.rivals[1]["held_out"]["rmse"]
    assert any("with 8 configurations (fewer than 20)" in sentence for sentence in law.warnings)
    np.testing.assert_allclose(law.predict(x), y, atol=5e-3)
    low, high = law.band(x)
    assert ((low <= law.predict(x)) & (law.predict(x) <= high)).all()


def test_the_held_out_sizes_are_the_largest_and_were_not_seen():
    x, y = planted.auc(sizes=10)
    changed = np.where(x > 2e7, y - 0.05, y)  # the two largest sizes only
    plain, other = _fit(x, y), _fit(x, changed)
    predicted = [[point["predicted"] for point in law.held_out["points"]] for law in (plain, other)]
    np.testing.assert_allclose(*predicted, rtol=1e-9)
    assert {point["x"] for point in plain.held_out["points"]} == set(np.unique(x)[-2:])
    assert other.held_out["rmse"] == pytest.approx(0.05, rel=0.1)
    point = plain.held_out["points"][0]
    assert point["low"] < point["predicted"] < point["high"]


def test_a_tenth_of_many_sizes_is_held_out_by_their_product():
    x, y = planted.chinchilla()
    law = _fit(x, y, "chinchilla")
    held = x[law.held].prod(1)
    assert len(held) >= 5 and held.min() >= x[~law.held].prod(1).max()
    assert [rival["form"] for rival in law.rivals] == ["constant", "log-linear"]
    assert law.parameters["E"].low == law.parameters["E"].bootstrap[0]  # of 48 configurations


def test_few_sizes_or_a_short_range_prefer_nothing():
    for options, reason in (
        ({"decades": 1.0}, r"x spans 1 decades \(of 1.5 needed\)"),
        ({"sizes": 4}, r"there are 4 sizes of x \(of 5 needed\)"),
    ):
        for form in ("power", "log"):
            law = _fit(*planted.auc(**options), form)
            assert law.preferred is None
            sentence = "a power law and a logarithm cannot be told apart: " + reason
            assert re.match(sentence, law.warnings[0])


def test_a_logarithm_is_preferred_where_it_is_true():
    x, _ = planted.auc()
    y = 0.4 + 0.02 * np.log(x) + np.random.default_rng(0).normal(size=len(x)) * 2e-4
    law = _fit(x, y, "log")
    assert law.preferred == "log"
    assert law.parameters["k"].low < 0.02 < law.parameters["k"].high
    rival = law.rivals[1]
    assert rival["form"] == "power" and "refused" in rival


def test_without_its_largest_sizes_a_fit_may_be_refused():
    x, y = planted.auc(sizes=3, seeds=4)
    law = _fit(x, y)
    assert law.held_out is None
    assert any("no size was held out" in sentence for sentence in law.warnings)
    x, y = planted.auc(sizes=6)
    straight = np.where(x < 2e6, 0.5 + 0.03 * np.log(x / 1e4), y.max())
    law = _fit(x, np.minimum(straight, 0.68))
    assert "E is at its bound" in law.held_out["refused"]
    assert any("largest sizes there is no fit" in sentence for sentence in law.warnings)


def test_loops_are_measured_against_loops_for_nothing():
    law = _fit(*planted.loops(), "loops")
    assert law.parameters["phi"].low < 0.5 < law.parameters["phi"].high
    assert [rival["form"] for rival in law.rivals] == ["constant", "log-linear", "power"]
    assert law.preferred == "loops"


def test_aic_of_squares_is_the_textbook_one():
    x, y = planted.auc()
    values = []
    for form in (POWER, LOG, CONSTANT):
        problem, _, objective = solve(form, checked_points(POWER, x, y, None, None, None))
        expected = len(y) * np.log(2 * np.pi * 2 * objective / len(y)) + len(y)
        values.append(akaike(problem, objective))
        assert values[-1] == pytest.approx(expected + 2 * (len(form.parameters) + 1), abs=1e-6)
    assert values == sorted(values)


def test_aic_of_a_loss_is_that_of_its_noise_where_residuals_are_small():
    x, y = planted.auc(noise=1e-6)
    problem, _, objective = solve(POWER, checked_points(POWER, x, 1 - y, None, None, None))
    squares = len(y) * np.log(2 * np.pi * 2 * objective / len(y)) + len(y) + 2 * 4
    assert akaike(problem, objective) == pytest.approx(squares, abs=1e-3)


def test_a_preferred_form_fits_and_predicts_best():
    def rival(aic, rmse):
        return {"form": "log", "aic": aic, "held_out": {"rmse": rmse}}

    assert preferred("power", -20.0, {"rmse": 1.0}, [rival(-10.0, 2.0)]) == "power"
    assert preferred("power", -10.0, {"rmse": 2.0}, [rival(-20.0, 1.0)]) == "log"
    assert preferred("power", -20.0, {"rmse": 2.0}, [rival(-10.0, 1.0)]) is None
    assert preferred("power", -20.0, {"rmse": 1.0}, [rival(-19.0, 2.0)]) is None
    assert preferred("power", -20.0, {"refused": "because"}, [rival(-10.0, 2.0)]) is None


def test_hold_out_leaves_as_many_sizes_as_parameters():
    for sizes, expected in ((3, 0), (4, 1), (5, 2), (8, 2), (40, 4)):
        points = checked_points(POWER, *planted.auc(sizes=sizes), None, None, None)
        held, count = hold_out(POWER, points)
        assert count == expected and held.sum() == 3 * expected


def test_a_law_whose_exponent_may_be_anything_is_refused():
    # log losses that fall faster than a logarithm of x
    x = np.repeat([32256.0, 102144.0, 322560.0, 1018624.0, 3222528.0], 3)
    y = np.array([549.6, 548.9, 548.5, 543.2, 544.5, 543.4, 536.0, 537.2, 536.3, 519.9, 519.2, 520.0])
    y = np.append(y, [502.2, 504.0, 502.5]) / 1e3
    with pytest.raises(UserError, match=r"'power' is not determined by these points: alpha may be anything"):
        _fit(x, y, rising=False)
