"""The figure of a law: points with their errors, the law, its band, and the points that were held out."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from suan_jax.figures import figure, look
from suan_jax.scaling.laws import Law
from suan_jax.scaling.report import Report

_LINE = 200  # points of a drawn curve
_BEYOND = 1.6  # times the range of x that a curve is drawn past it
_CURVES = 5
_HELD = "held out, then fitted"
_COLOURS = mpl.colormaps["cividis"]  # told apart in grey and by colour-blind eyes


def draw(report: Report, out: Path) -> None:
    """Writes fit.png and fit.svg."""
    with figure(out / "fit") as drawn:
        axes = drawn.subplots()
        axes.set_xscale("log")
        axes.set_ylabel(_words(report.y))
        if report.law.form == "chinchilla":
            _joint(drawn, axes, report)
        elif report.law.form == "loops":
            _loops(axes, report)
        else:
            _single(axes, report)


def _words(name: str) -> str:
    """A column's name as an axis shows it."""
    known = {"auc": "test AUC", "gauc": "test gAUC", "log_loss": "test log loss", "ne": "normalised entropy"}
    known |= {"params_body": "body parameters", "examples": "training examples"}
    name = name.rpartition(" AS ")[2]  # of an expression
    return known.get(name, name.replace("_", " ").replace('"', ""))


def _grid(values: np.ndarray) -> np.ndarray:
    return np.geomspace(values.min() / _BEYOND, values.max() * _BEYOND, _LINE)


def _law(axes: Axes, law: Law, at: np.ndarray, x: np.ndarray, colour, label: str | None, band: bool = True):
    """A curve over `at` (m,) of the law at x (m, k), and its band."""
    axes.plot(at, law.predict(x), color=colour, label=label, zorder=2)
    if band:
        name = "95 % band (bootstrap)" if label else None
        axes.fill_between(at, *law.band(x), color=colour, alpha=0.2, linewidth=0, label=name, zorder=1)


def _points(axes: Axes, report: Report, at: np.ndarray, chosen: np.ndarray, style: dict, label: str) -> None:
    """Points with their errors: filled ones that were fitted from the start, open ones that were held out."""
    points, held = report.law.points, report.law.held
    for mask, fill, name in ((~held, "full", label), (held, "none", _HELD)):
        mask = mask & chosen
        if not mask.any():
            continue
        errors = None if points.y_se is None else points.y_se[mask]
        axes.errorbar(
            at[mask],
            points.y[mask],
            yerr=errors,
            fmt="none",
            ecolor=style["color"],
            elinewidth=0.8,
            capsize=2,
        )
        axes.plot(
            at[mask],
            points.y[mask],
            linestyle="",
            fillstyle=fill,
            markersize=5,
            label=name,
            zorder=3,
            **style,
        )


def _single(axes: Axes, report: Report) -> None:
    law = report.law
    at = law.points.x[:, 0]
    grid = _grid(at)
    _points(axes, report, at, np.ones(len(at), bool), look(0), "runs")
    _law(axes, law, grid, grid[:, None], look(1)["color"], _equation(law))
    axes.set_xlabel(_words(report.x[0]))
    _legend(axes, law)


def _loops(axes: Axes, report: Report) -> None:
    """Against the effective parameters, where every number of loops falls on one curve."""
    law = report.law
    once, recurrent, loops = law.points.x.T
    phi = law.parameters["phi"].value
    at = once + loops**phi * recurrent
    grid = _grid(at)
    alone = np.stack([grid, np.zeros(_LINE), np.ones(_LINE)], -1)
    _law(axes, law, grid, alone, "#000000", _equation(law))
    for index, number in enumerate(np.unique(loops)):
        _points(axes, report, at, loops == number, look(index), f"loops: {number:g}")
    axes.set_xlabel(f"effective parameters, once + loops^φ · recurrent, φ = {phi:.2f}")
    _legend(axes, law)


def _joint(drawn: Figure, axes: Axes, report: Report) -> None:
    """Against N, one curve for each of a few D; points take the colour of their D."""
    law = report.law
    first, second = law.points.x.T
    norm = LogNorm(second.min(), second.max())
    chosen = np.unique(second)
    if len(chosen) > _CURVES + 1:
        chosen = np.geomspace(*np.percentile(second, [3, 97]), _CURVES)
    grid = _grid(first)
    for value in chosen:
        colour = _COLOURS(norm(value))
        _law(axes, law, grid, np.stack([grid, np.full(_LINE, value)], -1), colour, None)
    points, held = law.points, law.held
    if points.y_se is not None:
        axes.errorbar(first, points.y, yerr=points.y_se, fmt="none", ecolor="#888888", elinewidth=0.8)
    for mask, marker, name, size, edge in (
        (~held, "o", "runs", 20, "white"),
        (held, "D", _HELD, 26, "#D55E00"),
    ):
        if mask.any():
            axes.scatter(
                first[mask],
                points.y[mask],
                c=second[mask],
                cmap=_COLOURS,
                norm=norm,
                s=size,
                marker=marker,
                edgecolors=edge,
                linewidths=0.4 if marker == "o" else 1.0,
                zorder=3,
            )
            legend = {"color": "#888888", "markeredgecolor": edge, "markersize": size**0.5}
            axes.plot([], [], marker, label=name, **legend)
    scale = mpl.cm.ScalarMappable(norm, _COLOURS)
    drawn.colorbar(scale, ax=axes, label=_words(report.x[1]))
    axes.set_xlabel(_words(report.x[0]))
    axes.set_title(_equation(law), fontsize=9)
    _limits(axes, law)
    axes.legend(loc=_corner(law))


def _equation(law: Law) -> str:
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


def _corner(law: Law) -> str:
    """Where a law leaves room."""
    return "lower right" if law.rising else "upper right"


def _limits(axes: Axes, law: Law) -> None:
    """Keeps a wide band from pressing the points together."""
    low, high = law.points.y.min(), law.points.y.max()
    room = 0.25 * (high - low)
    axes.set_ylim(low - room, high + room)


def _legend(axes: Axes, law: Law) -> None:
    _limits(axes, law)
    if "E" in law.parameters:
        bound = law.parameters["E"].value
        low, high = axes.get_ylim()
        if low < bound < high:
            axes.axhline(bound, color="#666666", linestyle=":", linewidth=1, label=f"E = {bound:.4f}")
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if _HELD in once:  # after every marker that it is the open one of
        once[_HELD] = once.pop(_HELD)
    axes.legend(once.values(), once.keys(), loc=_corner(law))
