"""Forms that a scaling law may take: curves, their slopes, and starts for a fit.

Every form is written for a quantity z that falls with scale: a loss itself, or 1 − AUC. A rising AUC law
E − A/x^α is the falling law (1 − E) + A/x^α of 1 − AUC. Inside a fit, coefficients are logarithms, which
keeps them positive, and sizes are divided by their geometric mean, so that A and α are not told apart by
rounding.

Shapes: R fits at once, n points, k columns of x, p parameters.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from scipy.optimize import nnls

from suan_jax.errors import UserError, nearest

_EXPONENTS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5)
_LOOP_EXPONENTS = (0.0, 0.4, 0.8, 1.2)
_SMALLEST = 1e-3  # of the mean: where a coefficient that is 0 at a start begins instead


@dataclasses.dataclass(frozen=True)
class Form:
    """A form of law; subclasses say which.

    Attributes:
      name: as in `form=`.
      parameters: names, in the order of every vector of parameters.
      columns: what the columns of x are.
    """

    name: str
    parameters: tuple[str, ...]
    columns: tuple[str, ...]

    def units(self, x: np.ndarray) -> np.ndarray:
        """What each column of x (n, k) is divided by, (k,)."""
        return np.exp(np.log(x).mean(0))

    def features(self, x: np.ndarray, units: np.ndarray) -> np.ndarray:
        """What `curve` is a function of, (k, n); computed once per fit."""
        return np.log(x / units).T

    def size(self, x: np.ndarray) -> np.ndarray:
        """The one number that says which of several points is the largest, (n,)."""
        return x.prod(1)

    def curve(self, theta: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z of R laws, (R, n), and its slopes by the parameters theta (R, p), (R, n, p)."""
        raise NotImplementedError

    def starts(self, z: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Parameters to start a fit from, (S, p)."""
        raise NotImplementedError

    def unscaled(self, units: np.ndarray) -> np.ndarray:
        """The matrix (p, p) that takes parameters of scaled x to those of x itself."""
        raise NotImplementedError

    def values(self, theta: np.ndarray, rising: bool) -> np.ndarray:
        """Parameters as people write them, of parameters of unscaled x; both (R, p)."""
        raise NotImplementedError


class PowerLaw(Form):
    """E + Σ A_j / x_j^α_j over the columns of x, parameters (ln E, ln A_1, α_1, ln A_2, α_2, ...).

    One column is the usual law, two are Hoffmann et al. 2022 (arXiv 2203.15556, approach 3).
    """

    def curve(self, theta, features):  # noqa: D102
        floor = np.exp(theta[:, :1])
        z = np.broadcast_to(floor, (len(theta), features.shape[1]))
        slopes = [z]
        for column, logs in enumerate(features):
            term = np.exp(theta[:, 1 + 2 * column, None] - theta[:, 2 + 2 * column, None] * logs)
            z = z + term
            slopes += [term, -logs * term]
        return z, np.stack(slopes, -1)

    def starts(self, z, features):  # noqa: D102
        found = []
        for exponents in itertools.product(_EXPONENTS, repeat=len(features)):
            floor, *amplitudes = coefficients(z, np.exp(-np.array(exponents)[:, None] * features))
            pairs = zip(amplitudes, exponents, strict=True)
            found.append([floor, *(number for pair in pairs for number in pair)])
        return np.array(found)

    def unscaled(self, units):  # noqa: D102
        matrix = np.eye(len(self.parameters))
        for column, unit in enumerate(units):
            matrix[1 + 2 * column, 2 + 2 * column] = np.log(unit)
        return matrix

    def values(self, theta, rising):  # noqa: D102
        result = theta.copy()
        result[:, 0] = 1 - np.exp(theta[:, 0]) if rising else np.exp(theta[:, 0])
        amplitudes = slice(1, 1 + 2 * len(self.columns), 2)
        result[:, amplitudes] = np.exp(theta[:, amplitudes])
        return result


class LoopLaw(Form):
    """E + A / (N_once + r^φ N_rec)^α for r loops, parameters (ln E, ln A, α, φ).

    A loop that adds nothing has φ = 0, one that is worth as much as parameters of its own has φ = 1.
    """

    def units(self, x):  # noqa: D102
        unit = np.exp(np.log(x[:, 0] + x[:, 1]).mean())
        return np.array([unit, unit, 1.0])

    def features(self, x, units):  # noqa: D102
        once, recurrent, loops = (x / units).T
        return np.stack([once, recurrent, np.log(loops)])

    def size(self, x):  # noqa: D102
        return x[:, 0] + x[:, 1] * x[:, 2]

    def curve(self, theta, features):  # noqa: D102
        once, recurrent, logs = features
        floor, amplitude, alpha, phi = theta.T[:, :, None]
        looped = recurrent * np.exp(phi * logs)
        effective = once + looped
        term = np.exp(amplitude - alpha * np.log(effective))
        floor = np.broadcast_to(np.exp(floor), term.shape)
        by_phi = -alpha * term * looped * logs / effective
        return floor + term, np.stack([floor, term, -np.log(effective) * term, by_phi], -1)

    def starts(self, z, features):  # noqa: D102
        once, recurrent, logs = features
        found = []
        for alpha, phi in itertools.product(_EXPONENTS, _LOOP_EXPONENTS):
            effective = once + recurrent * np.exp(phi * logs)
            found.append([*coefficients(z, effective[None] ** -alpha), alpha, phi])
        return np.array(found)

    def unscaled(self, units):  # noqa: D102
        matrix = np.eye(4)
        matrix[1, 2] = np.log(units[0])
        return matrix

    def values(self, theta, rising):  # noqa: D102
        floor, amplitude = np.exp(theta[:, :2]).T
        return np.stack([1 - floor if rising else floor, amplitude, theta[:, 2], theta[:, 3]], -1)


class Logarithm(Form):
    """c + Σ k_j ln x_j; a constant where there are no columns."""

    def curve(self, theta, features):  # noqa: D102
        design = np.stack([np.ones(features.shape[1]), *features], -1)
        return theta @ design.T, np.broadcast_to(design, (len(theta), *design.shape))

    def starts(self, z, features):  # noqa: D102
        design = np.stack([np.ones(features.shape[1]), *features], -1)
        return np.linalg.lstsq(design, z, rcond=None)[0][None]

    def unscaled(self, units):  # noqa: D102
        matrix = np.eye(len(self.parameters))
        matrix[0, 1:] = -np.log(units)
        return matrix

    def values(self, theta, rising):  # noqa: D102
        return np.concatenate([1 - theta[:, :1], -theta[:, 1:]], 1) if rising else theta.copy()


def coefficients(z: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """Logarithms of the coefficients (1 + m,) ≥ 0 of a constant and m terms (m, n), by relative squares.

    For fixed exponents a power law is linear in its coefficients, so that this is a non-negative
    least-squares problem with one solution. Zeros are raised to a small number, as their logarithm has no
    slope to leave by.
    """
    design = np.stack([np.ones_like(z), *terms], -1)
    found, _ = nnls(design / z[:, None], np.ones_like(z))
    return np.log(np.maximum(found, _SMALLEST * z.mean() / np.maximum(design.mean(0), 1e-9)))


POWER = PowerLaw("power", ("E", "A", "alpha"), ("x",))
CHINCHILLA = PowerLaw("chinchilla", ("E", "A", "alpha", "B", "beta"), ("N", "D"))
LOOPS = LoopLaw("loops", ("E", "A", "alpha", "phi"), ("once", "recurrent", "loops"))
LOG = Logarithm("log", ("c", "k"), ("x",))
LOG_LINEAR = Logarithm("log-linear", ("c", "k_1", "k_2"), ("x_1", "x_2"))
CONSTANT = Logarithm("constant", ("c",), ())

FORMS = {form.name: form for form in (POWER, LOG, CHINCHILLA, LOOPS)}
"""What `form=` may be."""


def form_named(name: str) -> Form:
    """One of `FORMS`.

    Raises:
      UserError: if there is none of that name.
    """
    if name not in FORMS:
        raise UserError(
            f"form is {name!r}, the nearest is {nearest(str(name), FORMS)!r} of {', '.join(FORMS)}"
        )
    return FORMS[name]
