"""What a fit is refused for: points that do not determine it, and optima at the end of a range."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from suan_jax.errors import UserError
from suan_jax.scaling.fitting import Points, Problem, best_fit
from suan_jax.scaling.forms import LOOPS, POWER, Form, Logarithm

_EXPONENT = (5e-3, 5.0)  # a power law beyond looks like a logarithm, or like a step
_LOOP_EXPONENT = 4.0
_NEAR_BOUND = 1e-4  # of the smallest loss, or of the smallest 1 − AUC
_FLAT = 1e-6  # of y: a law that moves by less does not move


def checked_points(
    form: Form,
    x: np.ndarray,
    y: np.ndarray,
    y_se: np.ndarray | None,
    groups: Sequence[Hashable] | None,
    rising: bool | None,
) -> Points:
    """Points as a fit needs them; see `suan_jax.scaling.fit` for the arguments.

    Raises:
      UserError: if a number is not right, naming where it is.
    """
    x = np.asarray(x, float)
    x = x[:, None] if x.ndim == 1 else x
    y = np.asarray(y, float)
    if y.ndim != 1 or x.ndim != 2 or len(x) != len(y) or x.shape[1] != len(form.columns):
        raise UserError(
            f"x has shape {x.shape} and y {y.shape}, expected (n, {len(form.columns)}) and (n,) for form="
            f"{form.name!r} with the columns {', '.join(form.columns)}"
        )
    if not len(y):
        raise UserError("there are no points, expected at least one per parameter and one more")
    _check_numbers(form, x, y)
    if y_se is not None:
        y_se = np.asarray(y_se, float)
        if y_se.shape != y.shape or not (np.isfinite(y_se) & (y_se > 0)).all():
            raise UserError("y_se holds something else than one positive standard error per point")
    if groups is None:  # runs of one configuration have the same x
        groups = list(map(tuple, x.tolist()))
    if len(groups) != len(y):
        raise UserError(f"groups has {len(groups)} entries for {len(y)} points, expected one per point")
    number: dict[Hashable, int] = {}
    group = np.array([number.setdefault(label, len(number)) for label in groups])
    if rising is None:
        rising = _trend(form.size(x), y) > 0
    if rising and y.max() >= 1:
        raise UserError(
            f"y is {y.max():g} at its highest, expected below 1 of an AUC, which rises with scale"
        )
    if not rising and y.min() <= 0:
        raise UserError(f"y is {y.min():g} at its lowest, expected a loss above 0")
    return Points(x, y, y_se, group, bool(rising))


def usable(form: Form, column: int, values: np.ndarray) -> np.ndarray:
    """Which values (n,) of a column of x a form can take: positive ones."""
    # A model may have no parameters of one of the two kinds.
    least = values >= 0 if form is LOOPS and column < 2 else values > 0
    return np.isfinite(values) & least


def _check_numbers(form: Form, x: np.ndarray, y: np.ndarray) -> None:
    for index, value in enumerate(y):
        if not np.isfinite(value):
            raise UserError(f"y[{index}] is {value}, expected a finite number")
    for column, name in enumerate(form.columns):
        right = usable(form, column, x[:, column])
        if not right.all():
            index = int(np.argmin(right))
            raise UserError(f"x[{index}] has {x[index, column]} in {name}, expected a positive finite number")
    if form is LOOPS and (x[:, :2].sum(1) == 0).any():
        raise UserError("x has a point of neither once nor recurrent parameters, expected some of either")


def _trend(size: np.ndarray, y: np.ndarray) -> float:
    logs = np.log(size)
    return float(((logs - logs.mean()) * (y - y.mean())).sum())


def solve(form: Form, points: Points) -> tuple[Problem, np.ndarray, float]:
    """Fits a form: the problem, its parameters (p,) and its objective.

    Raises:
      UserError: if the points cannot determine the form, or the optimum is at the end of a range.
    """
    _check_enough(form, points)
    problem = Problem.of(form, points)
    theta, objective = best_fit(problem)
    _check_optimum(problem, theta)
    return problem, theta, objective


def _check_enough(form: Form, points: Points) -> None:
    needed, found = len(form.parameters), len(points.y)
    if found <= needed:
        raise UserError(
            f"{found} points cannot determine the {needed} parameters of form={form.name!r} "
            f"({', '.join(form.parameters)}), expected at least {needed + 1}"
        )
    x = points.x[:, : len(form.columns)]
    sizes = len(np.unique(x, axis=0))
    if sizes < needed:
        raise UserError(
            f"{sizes} different sizes cannot determine the {needed} parameters of form={form.name!r} "
            f"({', '.join(form.parameters)}), expected at least {needed}"
        )
    if form is LOOPS:
        if len(np.unique(x[x[:, 1] > 0, 2])) < 2:
            raise UserError("the number of loops never differs, so that phi of form='loops' cannot be known")
        return
    logs = np.log(x) - np.log(x).mean(0)
    spread = np.linalg.svd(logs, compute_uv=False)
    if len(spread) and spread[-1] < 1e-6 * max(spread[0], 1e-300):
        raise UserError(
            f"{' and '.join(form.columns)} change only together: form={form.name!r} cannot tell them apart"
        )


def _check_optimum(problem: Problem, theta: np.ndarray) -> None:
    form, points = problem.form, problem.points
    if isinstance(form, Logarithm):
        return
    value = dict(zip(form.parameters, problem.values(theta[None])[0], strict=True))
    refused = f"form={form.name!r} does not fit these points: "
    law, slopes = form.curve(theta[None], problem.features)
    exponents = [name for name in ("alpha", "beta") if name in value]
    for index, name in enumerate(exponents):
        column = "x" if len(exponents) == 1 else form.columns[index]
        term = slopes[0, :, form.parameters.index(name) - 1]  # the slope by the logarithm of its coefficient
        if np.ptp(term) < _FLAT * law.mean() or value[name] < 0:
            raise UserError(f"{refused}y does not {'rise' if points.rising else 'fall'} with {column}")
        if not _EXPONENT[0] < value[name] < _EXPONENT[1]:
            raise UserError(
                f"{refused}{name} is at its bound ({value[name]:.3g}, expected between {_EXPONENT[0]:g} and "
                f"{_EXPONENT[1]:g})"
            )
    if abs(value.get("phi", 0.0)) > _LOOP_EXPONENT:
        raise UserError(
            f"{refused}phi is at its bound ({value['phi']:.3g}, expected within ±{_LOOP_EXPONENT:g})"
        )
    if np.exp(theta[0]) < _NEAR_BOUND * problem.z.min():
        bound, level = ("1", "ceiling") if points.rising else ("0", "floor")
        other = ", or form='log'" if form is POWER else ""
        raise UserError(
            f"{refused}E is at its bound {bound}, as the points show no {level} yet; expected larger sizes"
            f"{other}"
        )


def check_determined(form: Form, profiled: np.ndarray) -> None:
    """Checks that a fit says something of its exponents.

    Args:
      form: what was fitted.
      profiled: profile intervals of its parameters, (p, 2).

    Raises:
      UserError: if the interval of an exponent holds all that it may be.
    """
    for name, (low, high) in zip(form.parameters, profiled, strict=True):
        if name in ("alpha", "beta") and low <= _EXPONENT[0] and high >= _EXPONENT[1]:
            raise UserError(
                f"form={form.name!r} is not determined by these points: {name} may be anything from "
                f"{_EXPONENT[0]:g} to {_EXPONENT[1]:g} (its 95 % interval); expected more sizes, or a wider "
                "range of them"
            )
