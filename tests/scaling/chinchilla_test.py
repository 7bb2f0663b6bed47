"""Hoffmann et al.'s points, as extracted from a figure by Besiroglu et al. 2024 (arXiv 2404.10102)."""

import os
import pathlib

import numpy as np
import polars as pl
import pytest

from suan_jax.scaling import fit
from suan_jax.scaling.checks import checked_points, solve
from suan_jax.scaling.fitting import Problem
from suan_jax.scaling.forms import CHINCHILLA


def _points(left_out):
    if "SUAN_DATA" not in os.environ:
        pytest.skip("SUAN_DATA is not set: the folder that holds chinchilla")
    path = pathlib.Path(os.environ["SUAN_DATA"]) / "chinchilla" / "svg_extracted_data.csv"
    table = pl.read_csv(path).sort("loss")
    table = table.head(len(table) - left_out)
    size, flops = table["Model Size"].to_numpy(), table["Training FLOP"].to_numpy()
    return np.stack([size, flops / (6 * size)], -1), table["loss"].to_numpy()


def test_the_optimum_and_its_intervals():
    x, y = _points(5)
    law = fit(x, y, "chinchilla")
    assert len(y) == 240 and not law.rising
    assert law.objective == pytest.approx(0.00101827402, abs=1e-8)
    value = {name: each.value for name, each in law.parameters.items()}
    for name, known in {"alpha": 0.347310, "beta": 0.367172, "E": 1.81722}.items():
        assert value[name] == pytest.approx(known, abs=1e-3)
    for name, known in {"A": 477.83, "B": 2143.4}.items():
        assert value[name] == pytest.approx(known, rel=0.02)
    ends = {"E": (1.769, 1.871), "alpha": (0.317, 0.373), "beta": (0.331, 0.415)}
    for name, (low, high) in ends.items():
        each = law.parameters[name]
        assert (each.low, each.high) == each.bootstrap
        assert each.low == pytest.approx(low, abs=0.006) and each.high == pytest.approx(high, abs=0.006)
    for name, (low, high) in {"A": (285, 744), "B": (1042, 5810)}.items():
        assert law.parameters[name].low == pytest.approx(low, rel=0.1)
        assert law.parameters[name].high == pytest.approx(high, rel=0.1)


def test_all_points():
    x, y = _points(0)
    problem, theta, objective = solve(CHINCHILLA, checked_points(CHINCHILLA, x, y, None, None, None))
    assert len(y) == 245
    assert objective == pytest.approx(0.00182601, abs=1e-8)
    value = dict(zip(CHINCHILLA.parameters, problem.values(theta[None])[0], strict=True))
    for name, known in {"alpha": 0.3493, "beta": 0.4530, "E": 1.8913}.items():
        assert value[name] == pytest.approx(known, abs=1e-3)
    for name, known in {"A": 495.7, "B": 12845.6}.items():
        assert value[name] == pytest.approx(known, rel=0.02)


@pytest.mark.parametrize(
    ("printed", "objective"),
    [
        ((1.8172, 482.01, 0.3478, 2085.43, 0.3658), 0.00102284),  # Besiroglu et al.
        ((1.69, 406.4, 0.34, 410.7, 0.28), 0.0041210),  # Hoffmann et al.
    ],
)
def test_the_objective_at_printed_parameters(printed, objective):
    x, y = _points(5)
    problem = Problem.of(CHINCHILLA, checked_points(CHINCHILLA, x, y, None, None, None))
    floor, a, alpha, b, beta = printed
    natural = np.array([np.log(floor), np.log(a), alpha, np.log(b), beta])
    theta = np.linalg.solve(CHINCHILLA.unscaled(problem.units), natural)
    assert problem.objective(theta[None])[0] == pytest.approx(objective, rel=2e-4)
