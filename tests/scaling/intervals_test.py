import numpy as np
import pytest

from suan_jax.scaling.checks import checked_points, solve
from suan_jax.scaling.forms import LOG, POWER
from suan_jax.scaling.intervals import allowed_rise, bootstrap, percentiles, profile
from tests.scaling import planted


def _solved(x, y, form=POWER, groups=None, rising=True):
    problem, theta, _ = solve(form, checked_points(form, x, y, None, groups, rising))
    return problem, theta


def test_intervals_cover_what_was_planted():
    draws, known = 60, np.array(list(planted.AUC.values()))
    inside = {"profile": np.zeros(3), "bootstrap": np.zeros(3)}
    for seed in range(draws):
        problem, theta = _solved(*planted.auc(seed=seed))
        drawn = percentiles(problem.values(bootstrap(problem, theta, 100, seed)))
        for name, (low, high) in {"profile": profile(problem, theta), "bootstrap": drawn}.items():
            inside[name] += (low <= known) & (known <= high)
    for covered in inside.values():  # 57 expected, with a standard deviation of 1.7
        assert (covered >= 52).all()
    assert (inside["profile"] < draws).any()


def test_a_profile_of_a_line_is_its_textbook_interval():
    random = np.random.default_rng(0)
    x = np.logspace(1, 4, 12)
    y = 0.5 + 0.02 * np.log(x) + random.normal(size=12) * 0.003
    problem, theta = _solved(x, y, LOG)
    low, high = profile(problem, theta)
    design = np.stack([np.ones(12), np.log(x)], -1)
    found, squares, *_ = np.linalg.lstsq(design, y, rcond=None)
    error = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * squares[0] / 10)
    np.testing.assert_allclose(low, found - 2.228139 * error, rtol=1e-5)
    np.testing.assert_allclose(high, found + 2.228139 * error, rtol=1e-5)


@pytest.mark.smoke
def test_seeds_of_a_configuration_stay_together():
    x, y = planted.auc(sizes=9, seeds=1)
    once, theta = _solved(x, y)
    thrice, again = _solved(np.repeat(x, 3), np.repeat(y, 3))
    np.testing.assert_allclose(theta, again, rtol=1e-6)
    # The same numbers three times over are no more than they were once.
    np.testing.assert_allclose(
        bootstrap(once, theta, 50, seed=3), bootstrap(thrice, again, 50, seed=3), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(profile(once, theta), profile(thrice, again), rtol=1e-5)
    apart, same = _solved(np.repeat(x, 3), np.repeat(y, 3), groups=range(27))
    assert allowed_rise(apart, same) < 0.6 * allowed_rise(thrice, again)


def test_as_many_configurations_as_parameters_leave_the_spread_of_seeds():
    x, y = planted.auc(sizes=3, seeds=5)
    problem, theta = _solved(x, y)
    low, high = profile(problem, theta)
    value = problem.values(theta[None])[0]
    assert (low < value).all() and (value < high).all() and high[2] - low[2] > 0.005


def test_every_draw_has_enough_sizes():
    x, y = planted.auc(sizes=4)
    problem, theta = _solved(x, y)
    assert np.isfinite(bootstrap(problem, theta, 300, seed=0)).all()


def test_an_end_that_the_points_do_not_set_is_the_end_of_the_range():
    x, y = planted.auc(sizes=6, decades=0.6, noise=2e-3, seed=1)
    problem, theta = _solved(x, y)
    low, high = profile(problem, theta)
    assert high[0] == 1.0
    assert low[0] < problem.values(theta[None])[0, 0] < 1


def _lowest(problem, bound):
    """The lowest objective of E − A/x^α for one E, of all α and A ≥ 0."""
    exponents = np.concatenate([[0.0], np.geomspace(1e-4, 60, 4000)])
    terms = np.exp(-exponents[:, None] * problem.features[0])
    gap = problem.z - (1 - bound)
    amplitude = np.maximum((terms * gap).sum(1) / (terms**2).sum(1), 0)
    return (((amplitude[:, None] * terms - gap) ** 2).sum(1) / 2).min()


@pytest.mark.parametrize(
    ("sizes", "seeds", "decades", "noise"),
    [(3, 2, 1.0, 1.5e-2), (4, 2, 2.0, 1.5e-2), (8, 2, 2.0, 1.5e-2), (5, 3, 3.0, 5e-3), (5, 3, 3.0, 1e-3)],
)
def test_ends_of_a_profile_are_where_a_search_of_all_other_parameters_finds_them(
    sizes, seeds, decades, noise
):
    x = np.repeat(np.logspace(4, 4 + decades, sizes), seeds)
    y = 0.53 + 0.01 * np.log(x / 1e4) + np.random.default_rng(1).normal(size=len(x)) * noise
    problem, theta = _solved(x, y)
    low, high = profile(problem, theta)
    allowed = problem.objective(theta[None])[0] + allowed_rise(problem, theta)
    assert _lowest(problem, low[0]) == pytest.approx(allowed, rel=2e-2)
    if high[0] < 1:
        assert _lowest(problem, high[0]) == pytest.approx(allowed, rel=2e-2)
    else:
        assert _lowest(problem, 1 - 1e-9) < allowed
    assert low[2] >= 0 and high[2] > theta[2]


@pytest.mark.filterwarnings("error")
def test_a_profile_along_a_flat_valley_is_open():
    # log losses that fall faster than a logarithm of x: no exponent is much worse than the best
    x = np.repeat([32256.0, 102144.0, 322560.0, 1018624.0, 3222528.0], 3)
    y = np.array([549.6, 548.9, 548.5, 543.2, 544.5, 543.4, 536.0, 537.2, 536.3, 519.9, 519.2, 520.0])
    y = np.append(y, [502.2, 504.0, 502.5]) / 1e3
    problem, theta = _solved(x, y, rising=False)
    low, high = profile(problem, theta)
    assert (low == 0).all() and np.isinf(high[1:]).all() and high[0] < 0.6
    allowed = problem.objective(theta[None])[0] + allowed_rise(problem, theta)
    step = [np.log(0.5364), np.log(0.0126) + 20 * problem.features[0, 0], 20.0]  # down after the first size
    straight = [np.log(0.4), np.log(0.13), 1e-3]
    assert (problem.objective(np.array([step, straight])) < allowed).all()


def test_a_loss_has_the_intervals_that_its_noise_asks_for():
    known = np.array([0.2, 2.5, 0.32])
    covered = np.zeros(3)
    for seed in range(40):
        x, y = planted.auc(noise=0)
        y = (1 - y) * np.exp(np.random.default_rng(seed).normal(size=len(y)) * 2e-3)
        problem, theta = _solved(x, y, rising=False)
        low, high = profile(problem, theta)
        covered += (low <= known) & (known <= high)
    assert (covered >= 33).all()
