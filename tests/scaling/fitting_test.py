import numpy as np
import pytest
from scipy.optimize import lsq_linear, minimize, minimize_scalar

from suan_jax.scaling.checks import checked_points, solve
from suan_jax.scaling.fitting import HUBER_DELTA, Points, Problem, best_fit, minimise
from suan_jax.scaling.forms import CHINCHILLA, FORMS, LOOPS, POWER
from tests.scaling import planted


def _problem(form, x, y, y_se=None):
    return Problem.of(form, checked_points(form, x, y, y_se, None, None))


def _problems():
    x, y = planted.auc()
    return {
        "power": _problem(POWER, x, y, np.linspace(1e-3, 2e-3, len(y))),
        "a loss": _problem(POWER, x, 1 - y),
        "chinchilla": _problem(CHINCHILLA, *planted.chinchilla()),
        "loops": _problem(LOOPS, *planted.loops()),
    }


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["power", "a loss", "chinchilla", "loops"])
def test_the_gradient_is_that_of_the_objective_and_vanishes_at_the_optimum(name):
    problem = _problems()[name]
    theta, objective = best_fit(problem)
    away = theta + 0.05
    gradient = problem.gradient(away[None])[0]
    for index in range(len(theta)):
        step = np.zeros(len(theta))
        step[index] = 1e-7
        ends = problem.objective(np.stack([away + step, away - step]))
        assert gradient[index] == pytest.approx((ends[0] - ends[1]) / 2e-7, rel=1e-4)
    assert np.abs(problem.gradient(theta[None])[0]).max() < 1e-5 * np.abs(gradient).max()
    assert objective < problem.objective(away[None])[0]


@pytest.mark.parametrize("name", ["power", "a loss", "chinchilla", "loops"])
def test_no_other_minimiser_finds_a_lower_objective(name):
    problem = _problems()[name]
    theta, objective = best_fit(problem)

    def scaled(candidate):
        return problem.objective(candidate[None])[0] / objective

    other = minimize(scaled, theta + 0.02, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-12})
    assert other.fun > 1 - 1e-9
    assert other.fun < 1.05  # it came near, so the comparison says something


def test_coefficients_by_bounded_least_squares_agree():
    x, y = planted.auc()

    def squares(alpha):
        design = np.stack([np.ones_like(x), -(x**-alpha)], -1)
        return lsq_linear(design, y, bounds=([0, 0], [1, np.inf]), tol=1e-14).cost

    best = minimize_scalar(squares, bounds=(0.1, 0.6), method="bounded", options={"xatol": 1e-10})
    problem, theta, objective = solve(POWER, checked_points(POWER, x, y, None, None, True))
    assert objective == pytest.approx(best.fun, rel=1e-8)
    assert problem.values(theta[None])[0, 2] == pytest.approx(best.x, abs=1e-6)


def test_a_loss_is_measured_by_hubers_sum_of_log_residuals():
    x, y = planted.chinchilla()
    problem = _problem(CHINCHILLA, x, y)
    theta, _ = best_fit(problem)
    residual = np.abs(np.log(problem.law(theta[None], x)[0]) - np.log(y))
    inside = residual <= HUBER_DELTA
    assert 0 < inside.sum() < len(y)
    outside = HUBER_DELTA * (residual[~inside] - HUBER_DELTA / 2)
    expected = (residual[inside] ** 2 / 2).sum() + outside.sum()
    assert problem.objective(theta[None])[0] == pytest.approx(expected, rel=1e-12)


def test_fits_at_once_are_the_fits_alone():
    problem = _problems()["chinchilla"]
    theta, _ = best_fit(problem)
    weights = np.random.default_rng(0).multinomial(48, np.full(48, 1 / 48), 5).astype(float)
    together = minimise(problem, np.tile(theta, (5, 1)), weights)
    for index, row in enumerate(weights):
        alone = np.repeat(np.arange(48), row.astype(int))
        points = problem.points.select(alone)
        again = Problem(problem.form, points, problem.units, problem.features[:, alone], problem.z[alone])
        found, objective = best_fit(again)
        assert problem.objective(together[index : index + 1], row)[0] == pytest.approx(objective, rel=1e-6)
        np.testing.assert_allclose(together[index], found, rtol=1e-3)


def test_known_parameters_come_back():
    for form, (x, y), known in (
        ("power", planted.auc(noise=0), [0.8, 2.5, 0.32]),
        ("chinchilla", planted.chinchilla(noise=0), [1.8, 400, 0.34, 1500, 0.36]),
        ("loops", planted.loops(noise=0), [0.8, 1.5, 0.3, 0.5]),
    ):
        problem = _problem(FORMS[form], x, y)
        np.testing.assert_allclose(problem.values(best_fit(problem)[0][None])[0], known, rtol=1e-5)


def test_units_of_x_change_the_amplitude_alone():
    x, y = planted.chinchilla()
    one, other = _problem(CHINCHILLA, x, y), _problem(CHINCHILLA, x * [1e-6, 1e3], y)
    floor, a, alpha, b, beta = one.values(best_fit(one)[0][None])[0]
    scaled = other.values(best_fit(other)[0][None])[0]
    expected = [floor, a * 1e-6**alpha, alpha, b * 1e3**beta, beta]
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)


def test_standard_errors_weigh_the_points_of_an_auc():
    x, y = planted.auc(noise=0)
    y[-3:] += 0.05
    weak = np.where(np.arange(len(y)) >= len(y) - 3, 1e3, 1e-3)
    problem = Problem.of(POWER, Points(x[:, None], y, weak, np.arange(len(y)), True))
    np.testing.assert_allclose(problem.values(best_fit(problem)[0][None])[0], [0.8, 2.5, 0.32], rtol=1e-4)
