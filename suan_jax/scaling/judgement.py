"""What a law may be trusted for: what it predicts of sizes it did not see, beside simpler rivals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from suan_jax.errors import UserError
from suan_jax.scaling.checks import solve
from suan_jax.scaling.fitting import HUBER_DELTA, Points, Problem
from suan_jax.scaling.forms import CONSTANT, LOG, LOG_LINEAR, LOOPS, POWER, Form
from suan_jax.scaling.intervals import bootstrap, percentiles

_HELD_SHARE = 0.1  # of the sizes, and at least _HELD_LEAST
_HELD_LEAST = 2
DECADES = 1.5
SIZES = 5
_CLEAR = 2.0  # difference of AIC below which two forms fit alike
_ONE_NOISE = 1e-30


def rivals(form: Form, points: Points) -> list[tuple[Form, Points]]:
    """What a form is measured against: a constant, a logarithm (a power law against a logarithm)."""
    if form is LOOPS:
        once, recurrent, loops = points.x.T
        points = _with_x(points, np.stack([once + recurrent, loops], -1))
    logs = LOG if len(form.columns) == 1 else LOG_LINEAR
    others = [(CONSTANT, points), (POWER if form is LOG else logs, points)]
    if form is LOOPS:  # as if loops were for nothing
        others.append((POWER, _with_x(points, points.x[:, :1])))
    return others


def _with_x(points: Points, x: np.ndarray) -> Points:
    return Points(x, points.y, points.y_se, points.group, points.rising)


def r_squared(problem: Problem, theta: np.ndarray) -> float:
    """1 − squares around the law / squares around the mean, of y, weighted as the fit is."""
    points = problem.points
    weights = 1 / points.y_se**2 if points.rising and points.y_se is not None else np.ones_like(points.y)
    mean = np.average(points.y, weights=weights)
    around = (weights * (points.y - problem.law(theta[None], points.x)[0]) ** 2).sum()
    total = (weights * (points.y - mean) ** 2).sum()
    return float(1 - around / total) if total else math.nan


def akaike(problem: Problem, objective: float) -> float:
    """AIC of the density that the objective is the logarithm of, exp(−ρ(r)/s), s its best value.

    Squares make it normal, Huber's ρ normal with exponential tails. Differences between forms that are
    fitted to the same points mean something, its value does not.
    """
    count = len(problem.z)

    def deviance(log_s: float) -> float:
        s = math.exp(log_s)
        if problem.points.rising:
            norm = math.sqrt(2 * math.pi * s)
        else:
            edge = HUBER_DELTA / math.sqrt(2 * s)
            norm = math.sqrt(2 * math.pi * s) * math.erf(edge) + 2 * s / HUBER_DELTA * math.exp(-(edge**2))
        return 2 * (objective / s + count * math.log(norm))

    middle = math.log(max(2 * objective / count, _ONE_NOISE))
    best = minimize_scalar(deviance, bounds=(middle - 12, middle + 12), method="bounded")
    return float(best.fun + 2 * (len(problem.form.parameters) + 1))


def hold_out(form: Form, points: Points) -> tuple[np.ndarray, int]:
    """Mask (n,) of the points of the largest sizes, which the form can be fitted without; how many sizes."""
    size = form.size(points.x)
    order = np.unique(size)
    wanted = max(_HELD_LEAST, math.ceil(_HELD_SHARE * len(order)))
    held = min(wanted, len(order) - len(form.parameters))
    if held < 1:
        return np.zeros(len(size), bool), 0
    return size >= order[-held], held


def held_out(
    form: Form, points: Points, held: np.ndarray, resamples: int = 0, seed: int = 0
) -> dict[str, Any]:
    """How a form that is fitted to the other points predicts the held-out ones.

    Args:
      form: the form.
      points: all points.
      held: mask of those to predict, (n,).
      resamples: of a bootstrap that gives each prediction its interval; none for 0.
      seed: of the bootstrap.

    Returns:
      rmse and mean_absolute_error in units of y, and with resamples the points; where the form cannot be
      fitted to the others, the sentence that says why as "refused".
    """
    try:
        kept = points.select(~held)
        kept = Points(kept.x, kept.y, kept.y_se, np.unique(kept.group, return_inverse=True)[1], kept.rising)
        problem, theta, _ = solve(form, kept)
    except UserError as error:
        return {"refused": str(error)}
    unseen = points.select(held)
    predicted = problem.law(theta[None], unseen.x)[0]
    error = predicted - unseen.y
    result: dict[str, Any] = {
        "rmse": float(np.sqrt((error**2).mean())),
        "mean_absolute_error": float(np.abs(error).mean()),
    }
    if resamples:
        low, high = percentiles(problem.law(bootstrap(problem, theta, resamples, seed), unseen.x))
        result["points"] = [
            {
                "x": x.tolist() if len(x) > 1 else float(x[0]),
                "y": float(y),
                "predicted": float(value),
                "low": float(bottom),
                "high": float(top),
            }
            for x, y, value, bottom, top in zip(unseen.x, unseen.y, predicted, low, high, strict=True)
        ]
    return result


def judge_rivals(form: Form, points: Points, held: np.ndarray) -> list[dict[str, Any]]:
    """Every rival: form, parameters, r2, aic and held_out, or the sentence why it is refused."""
    found = []
    for rival, theirs in rivals(form, points):
        try:
            problem, theta, objective = solve(rival, theirs)
        except UserError as error:
            found.append({"form": rival.name, "refused": str(error)})
            continue
        values = problem.values(theta[None])[0].tolist()
        found.append(
            {
                "form": rival.name,
                "parameters": dict(zip(rival.parameters, values, strict=True)),
                "r2": r_squared(problem, theta),
                "aic": akaike(problem, objective),
                "held_out": held_out(rival, theirs, held) if held.any() else None,
            }
        )
    return found


def indistinguishable(form: Form, points: Points) -> str:
    """Why these points cannot tell a power law from a logarithm; empty if they can."""
    if form is LOOPS:
        axes = {"parameters": form.size(points.x)}
    else:
        axes = {name: points.x[:, index] for index, name in enumerate(form.columns)}
    reasons = []
    for name, axis in axes.items():
        decades = math.log10(axis.max() / axis.min())
        if decades < DECADES:
            reasons.append(f"{name} spans {decades:.2g} decades (of {DECADES:g} needed)")
        if len(np.unique(axis)) < SIZES:
            reasons.append(f"there are {len(np.unique(axis))} sizes of {name} (of {SIZES} needed)")
    if not reasons:
        return ""
    return f"a power law and a logarithm cannot be told apart: {' and '.join(reasons)}"


def preferred(name: str, aic: float, held: dict[str, Any] | None, others: list[dict[str, Any]]) -> str | None:
    """The form that has both the lowest AIC, clearly, and the best held-out prediction; None if none has."""
    forms = [{"form": name, "aic": aic, "held_out": held}, *(other for other in others if "aic" in other)]
    forms = [form for form in forms if form["held_out"] and "rmse" in form["held_out"]]
    if len(forms) < 2:
        return None
    first, second = sorted(forms, key=lambda form: form["aic"])[:2]
    nearest = min(forms, key=lambda form: form["held_out"]["rmse"])
    return first["form"] if second["aic"] - first["aic"] > _CLEAR and nearest is first else None
