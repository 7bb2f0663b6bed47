"""A law, fitted: its parameters with their intervals, and what it may be trusted for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from suan_jax.scaling import judgement
from suan_jax.scaling.checks import check_determined, checked_points, solve
from suan_jax.scaling.fitting import Points, Problem
from suan_jax.scaling.forms import form_named
from suan_jax.scaling.intervals import bootstrap, percentiles, profile

FEW_SIZES = 20
RESAMPLES = 1000
_OPEN_SHARE = 0.025  # of the bootstrap's fits that may end at a bound without opening an interval
_AT_BOUND = 1e-4


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A parameter and its 95 % intervals.

    Attributes:
      value: of the lowest objective.
      low: lower end of the interval to quote: the profile's with fewer than 20 configurations, else the
        bootstrap's.
      high: upper end.
      bootstrap: (low, high) over resampled configurations.
      profile: (low, high) by the rise of the objective.
    """

    value: float
    low: float
    high: float
    bootstrap: tuple[float, float]
    profile: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Law:
    """What `fit` found.

    Attributes:
      form: name of the form.
      rising: whether y grows with scale, as AUC does.
      parameters: name to `Estimate`.
      objective: the minimum: the sum of squares / 2, or the sum of Huber's ρ.
      r2: share of the variance of y that the law explains.
      aic: comparable with the rivals'.
      held_out: prediction of the largest sizes from the others ("sizes", "rmse", "mean_absolute_error",
        "points", or "refused"); None if there are too few sizes.
      rivals: other forms on the same points, with "parameters", "r2", "aic" and "held_out", or "refused".
      preferred: the form that fits and predicts best, where the points can tell; else None.
      warnings: sentences that belong wherever the numbers go.
      points: what was fitted.
      held: mask of the points that were held out, (n,).
    """

    form: str
    rising: bool
    parameters: dict[str, Estimate]
    objective: float
    r2: float
    aic: float
    held_out: dict[str, Any] | None
    rivals: list[dict[str, Any]]
    preferred: str | None
    warnings: list[str]
    points: Points = dataclasses.field(repr=False)
    held: np.ndarray = dataclasses.field(repr=False)
    _problem: Problem = dataclasses.field(repr=False)
    _theta: np.ndarray = dataclasses.field(repr=False)
    _samples: np.ndarray = dataclasses.field(repr=False)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The law's y at x (m,) or (m, k), (m,)."""
        return self._problem.law(self._theta[None], _columns(x))[0]

    def band(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the bootstrap's 95 % interval of the law at x (m,) or (m, k), both (m,)."""
        return percentiles(self.sampled(x))

    def sampled(self, x: np.ndarray) -> np.ndarray:
        """y of the bootstrap's laws at x (m,) or (m, k), (resamples, m)."""
        return self._problem.law(self._samples, _columns(x))

    def sampled_parameters(self) -> dict[str, np.ndarray]:
        """Parameters of the bootstrap's laws, each (resamples,)."""
        return dict(zip(self.parameters, self._problem.values(self._samples).T, strict=True))

    def interval(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the 95 % interval of ONE further run at x (m,) or (m, k), both (m,).

        The bootstrap's laws, each with the residual of a fitted run drawn at random: of y where it rises, of
        ln y where it falls, stretched by the root of runs over runs less parameters, as a fit is nearer to
        its own runs than to others.
        """
        points, laws = self.points, self.sampled(x)
        drawn = np.random.default_rng(0).integers(len(points.y), size=laws.shape)
        stretch = np.sqrt(len(points.y) / (len(points.y) - len(self.parameters)))
        fitted = self.predict(points.x)
        if self.rising:
            return percentiles(laws + stretch * (points.y - fitted)[drawn])
        return percentiles(laws * np.exp(stretch * np.log(points.y / fitted)[drawn]))


def _columns(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, float)
    return x[:, None] if x.ndim == 1 else x


def fit(
    x: np.ndarray,
    y: np.ndarray,
    form: str,
    y_se: np.ndarray | None = None,
    groups: Sequence[Hashable] | None = None,
    *,
    rising: bool | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> Law:
    """Fits a scaling law, says how sure its numbers are, and what else would fit as well.

    A loss follows E + A/x^α and is fitted by the sum of Huber's ρ (δ = 1e-3) of log residuals (Hoffmann et
    al. 2022, arXiv 2203.15556); an AUC follows E − A/x^α and is fitted by least squares on residuals over
    their standard errors.

    Args:
      x: sizes, positive, (n,) or (n, k): one column for "power" and "log"; N and D for "chinchilla";
        parameters applied once, recurrent parameters and loops for "loops".
      y: what was measured, (n,).
      form: "power", "log" (c + k ln x), "chinchilla" (E + A/N^α + B/D^β), or "loops"
        (E + A/(N_once + r^φ N_rec)^α); minus signs where y rises.
      y_se: standard errors of y, (n,). They weigh the points of a rising y; intervals come from how far
        points lie from the law, not from them.
      groups: one label per point; points of one label are one configuration, such as its seeds. Points of
        equal x if None.
      rising: whether y grows with scale (AUC) or falls (a loss); as the points do if None.
      resamples: of the bootstrap.
      seed: of the bootstrap.
      advance: called with a number of finished resamples, now and then.

    Returns:
      The law.

    Raises:
      UserError: if a number is not right, if there are too few points, or if the fit is degenerate: E or an
        exponent at its bound, or an exponent that may be anything.
    """
    shape = form_named(form)
    points = checked_points(shape, x, y, y_se, groups, rising)
    problem, theta, objective = solve(shape, points)
    samples = bootstrap(problem, theta, resamples, seed, advance)
    held, sizes = judgement.hold_out(shape, points)
    prediction = judgement.held_out(shape, points, held, resamples, seed) if sizes else None
    others = judgement.judge_rivals(shape, points, held)
    aic = judgement.akaike(problem, objective)
    unclear = judgement.indistinguishable(shape, points)
    estimates = _estimates(problem, theta, samples)
    return Law(
        form=form,
        rising=points.rising,
        parameters=estimates,
        objective=objective,
        r2=judgement.r_squared(problem, theta),
        aic=aic,
        held_out={"sizes": sizes, **prediction} if prediction else None,
        rivals=others,
        preferred=None if unclear else judgement.preferred(form, aic, prediction, others),
        warnings=[unclear] * bool(unclear) + _warnings(problem, samples, sizes, prediction),
        points=points,
        held=held,
        _problem=problem,
        _theta=theta,
        _samples=samples,
    )


def _estimates(problem: Problem, theta: np.ndarray, samples: np.ndarray) -> dict[str, Estimate]:
    resampled = np.stack(percentiles(problem.values(samples)), -1)
    profiled = np.stack(profile(problem, theta), -1)
    check_determined(problem.form, profiled)
    quoted = profiled if _few(problem) else resampled
    values = problem.values(theta[None])[0]
    return {
        name: Estimate(float(value), *map(float, own), tuple(map(float, drawn)), tuple(map(float, risen)))
        for name, value, own, drawn, risen in zip(
            problem.form.parameters, values, quoted, resampled, profiled, strict=True
        )
    }


def _few(problem: Problem) -> bool:
    """Whether the profile's interval is to be quoted."""
    return problem.points.group.max() + 1 < FEW_SIZES


def _warnings(problem: Problem, samples: np.ndarray, sizes: int, prediction: dict | None) -> list[str]:
    count = problem.points.group.max() + 1
    found = []
    if _few(problem):
        found.append(
            f"with {count} configurations (fewer than {FEW_SIZES}) a bootstrap is not to be relied on: the "
            "intervals quoted are profiles of the objective, the bootstrap's stand beside them"
        )
    needed = len(problem.form.parameters)
    if count <= needed:
        found.append(
            f"with {count} configurations for {needed} parameters nothing says how well the form fits: the "
            "intervals are those of the spread of seeds alone"
        )
    if not sizes:
        found.append("no size was held out, as the form needs them all")
    elif "refused" in prediction:
        found.append(f"without the {sizes} largest sizes there is no fit: {prediction['refused']}")
    if problem.form.parameters[0] == "E":
        ends = np.exp(samples[:, 0]) < _AT_BOUND * problem.z.min()
        if ends.mean() > _OPEN_SHARE:
            share = f"{100 * ends.mean():.0f} %"
            found.append(f"E is at its bound in {share} of the bootstrap's fits: it is open on that side")
    return found
