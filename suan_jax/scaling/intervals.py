"""How far a fit's numbers may be off: a bootstrap over configurations, and profiles of the objective.

The bootstrap draws configurations with replacement, so that the seeds of one stay together, and fits again.
With few of them it is not to be relied on: a draw of 8 sizes has 5 different ones, often without the largest
or the smallest. A profile holds one parameter, fits the others, and moves it until the objective has risen by
what Student's t allows for the degrees of freedom, configurations less parameters.

How often both hold what was planted, `python -m tests.scaling.coverage` says; the README has the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.stats import t as student

from suan_jax.scaling.fitting import HUBER_DELTA, Problem, minimise

LEVEL = 0.95
_CHUNK = 100
_MAX_MOVES = 60
_BEYOND = 1e6  # stands for a rise where the law is no number any more
_NARROWINGS = 60
_NEAR = 0.05  # of roots between which the end is found on a straight line


def bootstrap(
    problem: Problem,
    theta: np.ndarray,
    resamples: int,
    seed: int,
    advance: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Parameters of fits to resampled configurations, (resamples, p).

    A draw with fewer different sizes than the form has parameters determines nothing and is drawn again.

    Args:
      problem: the fit.
      theta: its parameters (p,), where each fit starts.
      resamples: how many.
      seed: of the draws.
      advance: called with the number of fits after each of several parts.
    """
    random = np.random.default_rng(seed)
    group = problem.points.group
    found = []
    for first in range(0, resamples, _CHUNK):
        part = min(_CHUNK, resamples - first)
        draws = _draws(random, problem, part)
        found.append(minimise(problem, np.tile(theta, (part, 1)), draws[:, group].astype(float)))
        if advance:
            advance(part)
    return np.concatenate(found)


def _draws(random: np.random.Generator, problem: Problem, number: int) -> np.ndarray:
    """How often each configuration is drawn, (number, configurations)."""
    group = problem.points.group
    count = group.max() + 1
    _, size = np.unique(problem.features, axis=1, return_inverse=True)
    holds = np.zeros((count, size.max() + 1))
    holds[group, size.ravel()] = 1
    drawn = random.multinomial(count, np.full(count, 1 / count), number)
    while len(poor := np.flatnonzero(((drawn @ holds) > 0).sum(1) < len(problem.form.parameters))):
        drawn[poor] = random.multinomial(count, np.full(count, 1 / count), len(poor))
    return drawn


def percentiles(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % interval of each column of samples (R, m), both (m,)."""
    low, high = np.percentile(samples, [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=0)
    return low, high


def allowed_rise(problem: Problem, theta: np.ndarray) -> float:
    """How far the objective may rise above its optimum `theta` (p,) within the 95 % interval.

    Half the square of Student's t times the variance of ρ' over the mean of ρ'', with the variance taken
    between configurations, so that seeds do not pass for sizes, or between points where there are no more
    configurations than parameters. For squares this is the usual interval for an unknown variance; for
    Huber's ρ, the mean of ρ'' is that of normal residuals of the same spread.
    """
    group = problem.points.group
    if group.max() + 1 <= len(theta):
        group = np.arange(len(group))
    freedom = group.max() + 1 - len(theta)
    residuals = problem.residuals(theta[None])[0][0]
    pull = problem.bend(residuals)[1] * residuals
    between = (np.bincount(group, pull) ** 2 / np.bincount(group)).sum() / freedom
    if not problem.points.rising:
        spread = (
            1.4826 * np.median(np.abs(residuals)) * math.sqrt(len(residuals) / (len(residuals) - len(theta)))
        )
        between /= math.erf(HUBER_DELTA / math.sqrt(2) / spread) if spread else 1.0
    return 0.5 * between * student.ppf((1 + LEVEL) / 2, freedom) ** 2


def profile(problem: Problem, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the profile interval of each parameter as people write it, both (p,).

    An end that the objective never reaches is that of the parameter's range: E at 0 (1 for an AUC), A and
    exponents at 0 or infinity.
    """
    size = len(theta)
    rise = allowed_rise(problem, theta)
    to_natural = problem.form.unscaled(problem.units)
    to_theta = np.linalg.inv(to_natural)
    lowest = float(problem.objective(theta[None])[0])
    # A batch of 2p: each parameter, downwards and upwards.
    index = np.repeat(np.arange(size), 2)
    sign = np.tile([-1.0, 1.0], size)
    free = np.stack([np.delete(to_theta, held, axis=1) for held in index])
    along, width = _valley(problem, theta, to_theta, rise)
    along = along[:, index].T * sign[:, None]
    alone = to_theta[:, index].T * sign[:, None]

    def hold(rows: np.ndarray, move: np.ndarray) -> None:
        """Moves parameters on from `inner`, fits the others, and takes the place as an inner or outer one.

        The others start where the optimum's valley points to and, if that ends outside, where they were: a
        valley may turn.
        """
        found, root = _descend(problem, inside[rows] + along[rows] * move[:, None], free[rows], lowest, rise)
        again = root > 1
        if again.any():
            start = inside[rows[again]] + alone[rows[again]] * move[again, None]
            other, other_root = _descend(problem, start, free[rows[again]], lowest, rise)
            found[again] = np.where((other_root < root[again])[:, None], other, found[again])
            root[again] = np.minimum(root[again], other_root)
        over = root > 1
        outer[rows[over]], outer_root[rows[over]] = (inner[rows] + move)[over], root[over]
        below = rows[~over]
        inner[below] += move[~over]
        inside[below], inner_root[below] = found[~over], root[~over]

    inner, outer = np.zeros(2 * size), np.full(2 * size, np.inf)
    # The root of the rise, over the root of what is allowed: nearly linear in the distance, 1 at the end.
    inner_root, outer_root = np.zeros(2 * size), np.full(2 * size, np.inf)
    inside = np.tile(theta, (2 * size, 1))
    step = 0.5 * width[index]
    for _ in range(_MAX_MOVES if rise else 0):
        rows = np.flatnonzero(~np.isfinite(outer))
        if not len(rows):
            break
        hold(rows, step[rows])
        step[rows] *= 1.25
    for _ in range(_NARROWINGS):
        rows = np.flatnonzero(np.isfinite(outer) & (outer_root - inner_root > _NEAR))
        if not len(rows):
            break
        share = np.clip(_share(inner_root[rows], outer_root[rows]), 0.1, 0.9)  # each takes a tenth off
        hold(rows, share * (outer - inner)[rows])
    ends = inner + _share(inner_root, outer_root) * (outer - inner)
    if rise == 0:  # every point lies on the law
        ends = np.zeros(2 * size)
    ends = (to_natural @ theta)[index] + sign * ends
    return _written(problem, ends.reshape(size, 2))


def _descend(
    problem: Problem, start: np.ndarray, free: np.ndarray, lowest: float, rise: float
) -> tuple[np.ndarray, np.ndarray]:
    """The lowest places (R, p) from `start`, and the roots of their rises over what is allowed, (R,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = minimise(problem, start, free=free)
        root = np.sqrt(np.maximum(problem.objective(found) - lowest, 0) / rise)
    return found, np.where(np.isfinite(root), root, _BEYOND)


def _share(inner_root: np.ndarray, outer_root: np.ndarray) -> np.ndarray:
    """How far between the inner and the outer place the end lies, kept off both; 1 where none is outer."""
    found = np.isfinite(outer_root)
    share = (1 - inner_root) / np.where(found, np.maximum(outer_root - inner_root, 1e-300), 1)
    return np.where(found, np.clip(share, 0.001, 0.999), 1.0)


def _valley(problem, theta, to_theta, rise) -> tuple[np.ndarray, np.ndarray]:
    """Where the optimum moves per unit of each parameter, columns of (p, p), and how far it may, (p,)."""
    residuals, slopes = problem.residuals(theta[None])
    slopes = slopes[0] @ to_theta
    curvature = sum(problem.bend(residuals)) / 2
    scale = np.sqrt((curvature[0][:, None] * slopes**2).sum(0)) + 1e-300
    scaled = slopes / scale
    covariance = np.linalg.pinv((curvature[0][:, None] * scaled).T @ scaled, rcond=1e-12)
    covariance /= scale[:, None] * scale
    width = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    reach = math.sqrt(2 * rise)
    along = to_theta @ (covariance / width**2)
    return along, np.maximum(width * reach, 1e-12)


def _written(problem: Problem, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intervals (p, 2) of unscaled parameters as people write them."""
    with np.errstate(over="ignore"):
        written = problem.form.values(ends.T, problem.points.rising)
    exponents = np.isin(problem.form.parameters, ("alpha", "beta"))
    return np.where(exponents, np.maximum(written.min(0), 0), written.min(0)), written.max(0)
