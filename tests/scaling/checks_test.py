import numpy as np
import pytest

from suan_jax.errors import UserError
from suan_jax.scaling import fit
from suan_jax.scaling.checks import checked_points, solve
from suan_jax.scaling.forms import CHINCHILLA, LOG, LOOPS, POWER
from tests.scaling import planted

_X, _Y = planted.auc(sizes=6, seeds=1)


def _with(values, index, value):
    values = values.copy()
    values[index] = value
    return values


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("x", "y", "options", "sentence"),
    [
        (_X, _with(_Y, 2, np.nan), {}, r"y\[2\] is nan, expected a finite number"),
        (_with(_X, 1, 0), _Y, {}, r"x\[1\] has 0.0 in x, expected a positive finite number"),
        (_with(_X, 4, -5), _Y, {}, r"x\[4\] has -5.0 in x"),
        (_with(_X, 3, np.inf), _Y, {}, r"x\[3\] has inf in x"),
        (_X[:-1], _Y, {}, r"x has shape \(5, 1\) and y \(6,\), expected \(n, 1\) and \(n,\)"),
        (np.stack([_X, _X], -1), _Y, {}, r"x has shape \(6, 2\)"),
        (_X[:0], _Y[:0], {}, "there are no points"),
        (_X[:3], _Y[:3], {}, r"3 points cannot determine the 3 parameters of form='power' \(E, A, alpha\)"),
        (_X[[0, 0, 1, 1]], _Y[:4], {}, "2 different sizes cannot determine the 3 parameters"),
        (_X, _Y, {"y_se": np.zeros(6)}, "y_se holds something else than one positive standard error"),
        (_X, _Y, {"groups": [1, 2]}, "groups has 2 entries for 6 points"),
        (_X, _Y + 0.5, {"rising": True}, "y is 1.29.* at its highest, expected below 1"),
        (_X, _Y - 0.7, {"rising": False}, "at its lowest, expected a loss above 0"),
        (_X, 1 - _Y, {"rising": True}, "y does not rise with x"),
        (_X, _Y, {"rising": False}, "y does not fall with x"),
        (_X, _Y, {"form": "powr"}, "form is 'powr', the nearest is 'power' of power, log"),
    ],
)
def test_what_cannot_be_fitted_is_one_sentence(x, y, options, sentence):
    with pytest.raises(UserError, match=sentence):
        fit(x, y, **{"form": "power", **options})


@pytest.mark.parametrize(
    ("y", "sentence"),
    [
        (0.3 + 0.04 * np.log10(_X), "E is at its bound 1, as the points show no ceiling yet"),
        (0.9 * _X**-0.05, "E is at its bound 0, as the points show no floor yet"),
        (0.8 - 1e29 * _X**-7.5, r"alpha is at its bound \(7.5, expected between 0.005 and 5\)"),
    ],
)
def test_an_optimum_at_a_bound_is_no_number(y, sentence):
    with pytest.raises(UserError, match=f"form='power' does not fit these points: {sentence}"):
        fit(_X, y, "power")


def test_each_size_must_matter():
    x, _ = planted.chinchilla()
    noise = np.random.default_rng(0).normal(size=len(x))
    with pytest.raises(UserError, match=r"y does not fall with D|beta is at its bound"):
        fit(x, (2 + 400 * x[:, 0] ** -0.34) * np.exp(1e-9 * noise), "chinchilla")
    with pytest.raises(UserError, match="y does not fall with N"):
        fit(x, 2 + 1500 * x[:, 1] ** -0.36 + 1e-3 * np.log(x[:, 0]), "chinchilla")


def test_loops_that_never_differ_say_nothing_of_loops():
    x, y = planted.loops()
    with pytest.raises(UserError, match="the number of loops never differs"):
        solve(LOOPS, checked_points(LOOPS, x * [1, 1, 0] + [0, 0, 3], y, None, None, None))
    with pytest.raises(UserError, match=r"x\[0\] has 0.0 in loops"):
        checked_points(LOOPS, x * [1, 1, 0], y, None, None, None)
    checked_points(LOOPS, x * [0, 1, 1], y, None, None, None)  # a model may have only recurrent parameters


def test_sizes_that_change_together_are_not_told_apart():
    x, y = planted.chinchilla()
    x[:, 1] = 20 * x[:, 0]
    x[:, 0] *= np.linspace(1, 1 + 1e-9, len(x))
    with pytest.raises(UserError, match="N and D change only together"):
        solve(CHINCHILLA, checked_points(CHINCHILLA, x, y, None, None, None))


def test_whether_y_rises_is_seen_from_the_points():
    assert checked_points(POWER, _X, _Y, None, None, None).rising
    assert not checked_points(POWER, _X, 1 - _Y, None, None, None).rising
    assert not checked_points(LOG, _X, _Y, None, None, False).rising


def test_points_of_equal_x_are_one_configuration():
    x, y = planted.auc(sizes=4, seeds=3)
    assert checked_points(POWER, x, y, None, None, None).group.tolist() == np.repeat(range(4), 3).tolist()
    labels = ["a", "b"] * 6
    assert checked_points(POWER, x, y, None, labels, None).group.tolist() == [0, 1] * 6
