"""What figures of laws share: words for axes, curves with their bands, points with their errors."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from suan_jax.scaling.laws import Law
from suan_jax.scaling.report import Report

LINE = 200  # points of a drawn curve
HELD = "held out, then fitted"
_SHORT = 1.6  # decades
_BEYOND = 1.6  # times the range of x that a curve is drawn past it
_WORDS = {
    "auc": "AUC",
    "gauc": "gAUC",
    "log_loss": "log loss",
    "ne": "normalised entropy",
    "params_body": "body parameters",
    "examples": "training examples",
    "train_flops": "training FLOPs",
    "max_len": "history length",
    "learning_rate": "learning rate",
    "suan": "SUAN",
    "light_suan": "LightSUAN",
    "loopctr": "LoopCTR",
    "stackctr": "StackCTR",
    "din": "DIN",
    "can": "CAN",
    "soft_sim": "SoftSIM",
    "hard_sim": "HardSIM",
    "eta": "ETA",
    "twin": "TWIN",
    "bst": "BST",
    "hstu": "HSTU",
}


def words(name: str) -> str:
    """A column's or a model's name as a figure shows it."""
    name = name.rpartition(" AS ")[2]  # of an expression
    return _WORDS.get(name, name.replace("_", " ").replace('"', ""))


def spread(values: np.ndarray) -> np.ndarray:
    """Places from a little below the smallest to a little above the largest value, (LINE,)."""
    return np.geomspace(values.min() / _BEYOND, values.max() * _BEYOND, LINE)


def log_x(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic axis whose labels do not meet, however few decades the values span."""
    axes.set_xscale("log")
    decades = np.log10(values.max() / values.min())
    if decades < _SHORT:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades > 0.5 else (1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def curve(axes: Axes, law: Law, at: np.ndarray, x: np.ndarray, colour, label: str | None = None) -> None:
    """The law at x (m, k), drawn over `at` (m,), and the bootstrap's band of 95 %."""
    axes.plot(at, law.predict(x), color=colour, label=label, zorder=2)
    axes.fill_between(at, *law.band(x), color=colour, alpha=0.18, linewidth=0, zorder=1)


def dots(axes: Axes, report: Report, at: np.ndarray, chosen: np.ndarray, style: dict, label: str) -> None:
    """Points over `at` (n,) with their errors: full, or open if they were held out first."""
    points, held = report.law.points, report.law.held
    for mask, fill, name in ((~held, "full", label), (held, "none", HELD)):
        mask = mask & chosen
        if not mask.any():
            continue
        errors = None if points.y_se is None else points.y_se[mask]
        marks(axes, at[mask], points.y[mask], errors, style, name, fill)


def marks(
    axes: Axes, at: np.ndarray, y: np.ndarray, errors: np.ndarray | None, style: dict, label: str, fill: str
) -> None:
    """Points (n,) with their errors, "full" or, as `fill` says, open: "none"."""
    axes.errorbar(at, y, yerr=errors, fmt="none", ecolor=style["color"], elinewidth=0.8, capsize=2)
    axes.plot(at, y, linestyle="", fillstyle=fill, markersize=5, label=label, zorder=3, **style)


def tex_equation(law: Law) -> str:
    """The law with its numbers, in TeX."""
    value = {name: each.value for name, each in law.parameters.items()}
    sign = "-" if law.rising else "+"
    if law.form == "log":
        return rf"${value['c']:.4g} {value['k']:+.3g}\,\ln x$"
    amplitude = _tex(value["A"])
    if law.form == "chinchilla":
        other = rf"{sign} {_tex(value['B'])}\,D^{{-{value['beta']:.3f}}}"
        return rf"${value['E']:.4f} {sign} {amplitude}\,N^{{-{value['alpha']:.3f}}} {other}$"
    size = r"x" if law.form == "power" else r"N_\mathrm{eff}"
    return rf"${value['E']:.4f} {sign} {amplitude}\,{size}^{{-{value['alpha']:.3f}}}$"


def _tex(number: float) -> str:
    mantissa, _, exponent = f"{number:.3g}".partition("e")
    return rf"{mantissa}\cdot 10^{{{int(exponent)}}}" if exponent else mantissa


def keep_to_points(axes: Axes, low: float, high: float) -> None:
    """Keeps a wide band from pressing points between `low` and `high` together."""
    room = 0.25 * (high - low)
    axes.set_ylim(low - room, high + room)


def gap(axes: Axes, report: Report, at: np.ndarray, chosen: np.ndarray, style: dict, label: str) -> None:
    """How far points are from the law's ceiling or floor E, as a share of it, on logarithmic axes.

    Points at or beyond E have no place there, and are left out.
    """
    law = report.law
    bound = law.parameters["E"].value
    share = (1 - law.points.y / bound) * (1 if law.rising else -1)
    for mask, fill in ((~law.held, "full"), (law.held, "none")):
        mask = mask & chosen & (share > 0)
        if not mask.any():
            continue
        if law.points.y_se is not None:
            errors = law.points.y_se[mask] / bound
            down = np.minimum(errors, 0.9 * share[mask])  # a logarithm ends at 0
            bars = {"fmt": "none", "ecolor": style["color"], "elinewidth": 0.8, "capsize": 2}
            axes.errorbar(at[mask], share[mask], yerr=(down, errors), **bars)
        name = label if fill == "full" else None
        axes.plot(
            at[mask], share[mask], linestyle="", fillstyle=fill, markersize=5, label=name, zorder=3, **style
        )


def gap_words(report: Report) -> str:
    """What `gap` shows, for an axis."""
    name = rf"\mathrm{{{words(report.y)}}}".replace(" ", r"\ ")
    return f"distance from the ceiling, $1 - {name}/E$" if report.law.rising else f"excess, ${name}/E - 1$"


def legend_entries(axes: Axes) -> tuple[list, list[str]]:
    """Handles and labels, each once; that points were held out is said in grey, after everything else."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once.pop(HELD, None):
        once[HELD] = Line2D([], [], linestyle="", marker="o", fillstyle="none", markersize=5, color="#666666")
    return list(once.values()), list(once)
