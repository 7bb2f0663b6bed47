"""Points drawn from laws that are known."""

import numpy as np

AUC = {"E": 0.8, "A": 2.5, "alpha": 0.32}


def auc(sizes=8, seeds=3, decades=4.0, noise=1e-3, seed=0):
    """x (n,), y (n,) of E − A/x^α plus normal noise, from 10^4 upwards."""
    x = np.repeat(np.logspace(4, 4 + decades, sizes), seeds)
    noise = np.random.default_rng(seed).normal(size=len(x)) * noise
    return x, AUC["E"] - AUC["A"] * x ** -AUC["alpha"] + noise


def chinchilla(noise=2e-3, seed=0):
    """x (48, 2) of N and D, and the loss y (48,), of E 1.8, A 400, α .34, B 1500, β .36."""
    grid = np.meshgrid(np.logspace(7, 10, 8), np.logspace(9, 11.5, 6))
    x = np.stack([axis.ravel() for axis in grid], -1)
    y = 1.8 + 400 * x[:, 0] ** -0.34 + 1500 * x[:, 1] ** -0.36
    return x, y * np.exp(np.random.default_rng(seed).normal(size=len(x)) * noise)


def loops(noise=1e-3, seed=0):
    """x (40, 3) of parameters once, recurrent, and loops; AUC y (40,) of E .8, A 1.5, α .3, φ .5."""
    random = np.random.default_rng(seed)
    size, times = (axis.ravel() for axis in np.meshgrid(np.logspace(4, 7, 10), [1.0, 2.0, 4.0, 8.0]))
    x = np.stack([0.3 * size, 0.7 * size, times], -1)
    effective = 0.3 * size + 0.7 * size * times**0.5
    return x, 0.8 - 1.5 * effective**-0.3 + random.normal(size=len(x)) * noise
