"""How to divide compute between a model's size and its examples (Hoffmann et al. 2022, arXiv 2203.15556).

Of a law E ± A/N^α ± B/D^β, and of the FLOPs c(N) that training takes per unit of D, the best N and D of a
budget C = c(N)·D satisfy

    α A / N^α = γ(N) · β B / D^β,      γ(N) = d ln c / d ln N.

c(N) is read from the runs: it is 6 N for a language model, but not for a small body below a large head, so
that the exponents of the frontier are not those of the closed form with γ = 1.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.interpolate import PchipInterpolator

from suan_jax.errors import UserError
from suan_jax.scaling.intervals import percentiles
from suan_jax.scaling.laws import Law

_PLACES = 25


@dataclasses.dataclass(frozen=True)
class Exponent:
    """a of N ∝ C^a along the frontier, and the bootstrap's 95 % interval."""

    value: float
    ends: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Frontier:
    """Where a budget is best spent, from the smallest to the largest fitted N.

    Attributes:
      compute: FLOPs of training, (m,).
      size: N, (m,).
      data: D, (m,).
      y: what the law says, (m,).
      exponent: of N.
    """

    compute: list[float]
    size: list[float]
    data: list[float]
    y: list[float]
    exponent: Exponent


def frontier(law: Law, compute: np.ndarray) -> Frontier:
    """The frontier of a law of the form "chinchilla".

    Args:
      law: the law.
      compute: FLOPs that training took of each fitted point, (n,).

    Raises:
      UserError: if compute does not grow with N.
    """
    log_size, log_cost = _costs(law.points.x, compute)
    at = np.linspace(log_size[0], log_size[-1], _PLACES)
    if len(log_size) > 2:
        curve = PchipInterpolator(log_size, log_cost)
        cost, slope = curve(at), curve.derivative()(at)
    else:
        slope = np.full(_PLACES, np.diff(log_cost)[0] / np.diff(log_size)[0])
        cost = log_cost[0] + slope * (at - log_size[0])
    if slope.min() <= 0:
        raise UserError("training FLOPs per unit of D do not grow with N, expected runs of one kind of model")
    best = {name: np.array([each.value]) for name, each in law.parameters.items()}
    (data,) = _data(best, at, slope)
    exponents = _exponent(at, cost + _data(law.sampled_parameters(), at, slope))
    low, high = percentiles(exponents[:, None])
    size, examples = np.exp(at), np.exp(data)
    y = law.predict(np.stack([size, examples], -1))
    value = _exponent(at, (cost + data)[None])[0]
    return Frontier(
        *(list(map(float, values)) for values in (np.exp(cost + data), size, examples, y)),
        Exponent(float(value), (float(low[0]), float(high[0]))),
    )


def _costs(x: np.ndarray, compute: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ln N of each size, ascending, and ln of its FLOPs per unit of D, both (m,)."""
    sizes, index = np.unique(x[:, 0], return_inverse=True)
    each = np.log(compute / x[:, 1])
    return np.log(sizes), np.array([np.median(each[index == number]) for number in range(len(sizes))])


def _data(value: dict[str, np.ndarray], at: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """ln D beside each ln N `at` (m,), of R laws, (R, m)."""
    alpha, beta = value["alpha"][:, None], value["beta"][:, None]
    share = np.log(beta * value["B"][:, None] / (alpha * value["A"][:, None]))
    return (share + np.log(slope) + alpha * at) / beta


def _exponent(at: np.ndarray, log_compute: np.ndarray) -> np.ndarray:
    """Slope of ln N by ln C over the whole frontier, (R,), of ln C (R, m)."""
    return (at[-1] - at[0]) / (log_compute[:, -1] - log_compute[:, 0])
