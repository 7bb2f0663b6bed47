"""Fits a form to points: many fits at once, each to its own optimum.

The minimiser is a damped Gauss-Newton method on exact slopes, run on R weightings of the points together: a
grid of starts, resamples of a bootstrap and points of a profile are each one call. It stops where a step can
no longer lower the objective in double precision, not at a default tolerance: a published fit that stopped
early printed wrong exponents (Besiroglu et al. 2024, arXiv 2404.10102).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from suan_jax.scaling.forms import Form

HUBER_DELTA = 1e-3
_MAX_STEPS = 300
_LONGEST = 2.0  # of one step in any parameter
_GAIN = 1e-13  # share of the objective below which a step is not worth taking
_STUCK = 1e10


@dataclasses.dataclass(frozen=True)
class Points:
    """What a law is fitted to; n points of k columns.

    Attributes:
      x: (n, k).
      y: (n,).
      y_se: standard errors, (n,), or None; they weigh the points of a rising y.
      group: index of the configuration that each belongs to, (n,) int.
      rising: whether y is an AUC, which grows with scale, or a loss.
    """

    x: np.ndarray
    y: np.ndarray
    y_se: np.ndarray | None
    group: np.ndarray
    rising: bool

    def select(self, chosen: np.ndarray) -> Points:
        """Some of the points, by a mask or by indices."""
        se = None if self.y_se is None else self.y_se[chosen]
        return Points(self.x[chosen], self.y[chosen], se, self.group[chosen], self.rising)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A form and the points to fit it to.

    A rising y has ρ(r) = r²/2 of r = (law − y) / standard error; a loss has Huber's ρ, quadratic up to
    `HUBER_DELTA` and linear beyond, of r = ln law − ln y. The objective is the SUM of ρ.
    """

    form: Form
    points: Points
    units: np.ndarray
    features: np.ndarray
    z: np.ndarray

    @classmethod
    def of(cls, form: Form, points: Points) -> Problem:
        """The problem of fitting `form` to `points`, with units taken from their x."""
        x = points.x[:, : len(form.columns)]
        units = form.units(x)
        z = 1 - points.y if points.rising else points.y
        return cls(form, points, units, form.features(x, units), z)

    def residuals(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals (R, n) and their slopes (R, n, p) at theta (R, p)."""
        z, slopes = self.form.curve(theta, self.features)
        if self.points.rising:
            error = np.ones_like(self.z) if self.points.y_se is None else self.points.y_se
            return (z - self.z) / error, slopes / error[:, None]
        z = np.maximum(z, 1e-300)  # a logarithm of x may fall below zero: far worse than any other
        return np.log(z) - np.log(self.z), slopes / z[:, :, None]

    def cost(self, residuals: np.ndarray) -> np.ndarray:
        """ρ of each residual."""
        quadratic = residuals**2 / 2
        if self.points.rising:
            return quadratic
        size = np.abs(residuals)
        return np.where(size <= HUBER_DELTA, quadratic, HUBER_DELTA * (size - HUBER_DELTA / 2))

    def bend(self, residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ρ'' and ρ'(r)/r, the curvature of the parabola above ρ that touches it at r."""
        if self.points.rising:
            return np.ones_like(residuals), np.ones_like(residuals)
        size = np.abs(residuals)
        return (size <= HUBER_DELTA).astype(float), HUBER_DELTA / np.maximum(size, HUBER_DELTA)

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        """Slopes of the objective by the parameters, (R, p)."""
        residuals, slopes = self.residuals(theta)
        return np.einsum("rn,rnp->rp", self.bend(residuals)[1] * residuals, slopes)

    def objective(self, theta: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
        """The sum of ρ, (R,), each point counted `weights` (R, n) times."""
        return (weights * self.cost(self.residuals(theta)[0])).sum(-1)

    def law(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        """y of the laws theta (R, p) at x (m, k), (R, m)."""
        features = self.form.features(x[:, : len(self.form.columns)], self.units)
        z = self.form.curve(theta, features)[0]
        return 1 - z if self.points.rising else z

    def values(self, theta: np.ndarray) -> np.ndarray:
        """Parameters as people write them, (R, p)."""
        return self.form.values(theta @ self.form.unscaled(self.units).T, self.points.rising)


def best_fit(problem: Problem) -> tuple[np.ndarray, float]:
    """Parameters (p,) of the lowest objective from a grid of starts, and that objective."""
    starts = problem.form.starts(problem.z, problem.features)
    found = minimise(problem, starts)
    objectives = problem.objective(found)
    best = int(np.nanargmin(objectives))
    return found[best], float(objectives[best])


def minimise(
    problem: Problem,
    start: np.ndarray,
    weights: np.ndarray | None = None,
    free: np.ndarray | None = None,
) -> np.ndarray:
    """Lowers R objectives from R starts.

    Args:
      problem: form and points.
      start: parameters, (R, p).
      weights: how often each point counts, (R, n); once if None.
      free: directions (R, p, q) in which parameters may move; all if None.

    Returns:
      Parameters, (R, p).
    """
    theta = start.copy()
    size, points = len(start), len(problem.z)
    weights = np.ones((size, points)) if weights is None else weights
    free = np.broadcast_to(np.eye(start.shape[1]), (size, *[start.shape[1]] * 2)) if free is None else free
    damping = np.full(size, 1e-2)
    current = problem.objective(theta, weights)
    active = np.arange(size)
    for _ in range(_MAX_STEPS):
        step, promised = _step(problem, theta[active], weights[active], free[active], damping[active])
        lowered = problem.objective(theta[active] + step, weights[active])
        better = lowered < current[active]
        done = (promised <= _GAIN * current[active]) | (~better & (damping[active] > _STUCK))
        taken = active[better]
        theta[taken] += step[better]
        current[taken] = lowered[better]
        damping[active] *= np.where(better, 0.1, 8.0)
        damping = np.maximum(damping, 1e-12)
        active = active[~done]
        if not len(active):
            break
    return theta


def _step(problem, theta, weights, free, damping) -> tuple[np.ndarray, np.ndarray]:
    """Steps (R, p), and how much they promise to lower the objectives, (R,)."""
    residuals, slopes = problem.residuals(theta)
    slopes = slopes @ free
    exact, above = problem.bend(residuals)
    gradient = np.einsum("rn,rnq->rq", weights * above * residuals, slopes)
    # Where few residuals are small, ρ'' leaves the step open; the parabolas above ρ never do.
    share = (damping / (1 + damping))[:, None]
    mixed = weights * ((1 - share) * exact + share * above)
    hessian = np.swapaxes(slopes * mixed[:, :, None], 1, 2) @ slopes
    diagonal = np.einsum("rn,rnq->rq", weights * above, slopes**2)
    diagonal = diagonal * (damping[:, None] + 1e-13) + 1e-30 + 1e-18 * diagonal.max(1, keepdims=True)
    hessian[:, range(free.shape[2]), range(free.shape[2])] += diagonal
    move = -np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    step = np.einsum("rpq,rq->rp", free, move)
    shorten = np.minimum(1, _LONGEST / np.maximum(np.abs(step).max(1), 1e-300))
    return step * shorten[:, None], -np.einsum("rq,rq->r", gradient, move) * shorten
