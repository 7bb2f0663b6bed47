"""The figure of a law of size and data: a curve for each of a few D, and what compute is best spent on."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from suan_jax.figures import legend_below
from suan_jax.scaling.drawing import HELD, LINE, curve, keep_to_points, log_x, spread, tex_equation, words
from suan_jax.scaling.report import Report

_CURVES = 5
_ALL = 8  # as many values have a curve each
_COLOURS = mpl.colormaps["cividis"]  # told apart in grey and by colour-blind eyes
_EDGE = "#D55E00"  # of points that were held out


def draw(drawn: Figure, report: Report) -> None:
    """y against N, coloured by D and, where compute is known, against compute, coloured by N."""
    law = report.law
    size, data = law.points.x.T
    best = report.frontier
    axes, *more = np.ravel(drawn.subplots(1, 2 if best else 1, sharey=True))
    norm = LogNorm(data.min(), data.max())
    grid = spread(size)
    for value in _few(data):
        curve(axes, law, grid, np.stack([grid, np.full(LINE, value)], -1), _COLOURS(norm(value)))
    _dots(axes, report, size, data, norm)
    _finish(drawn, axes, report, size, report.x[0], report.x[1], norm)
    axes.set_ylabel(words(report.y))
    drawn.suptitle(tex_equation(law), fontsize=10)
    for panel in more:
        norm = LogNorm(size.min(), size.max())
        grid = spread(data)
        for value in _few(size):
            x = np.stack([np.full(LINE, value), grid], -1)
            cost = np.interp(np.log(value), *_cost(report))
            panel.plot(grid * np.exp(cost), law.predict(x), color=_COLOURS(norm(value)), linewidth=1)
        _dots(panel, report, report.compute, size, norm)
        share = best.exponent
        label = f"best N and D of a budget C: N ∝ $C^{{{share.value:.2f}}}$"
        label += f" ({share.ends[0]:.2f} to {share.ends[1]:.2f})"
        panel.plot(best.compute, best.y, color="#000000", linewidth=2, label=label, zorder=4)
        _finish(drawn, panel, report, report.compute, "train_flops", report.x[0], norm)
    legend_below(drawn, *(more or [axes])[0].get_legend_handles_labels())


def _cost(report: Report) -> tuple[np.ndarray, np.ndarray]:
    """ln N and ln of FLOPs per unit of D, of every run, ascending."""
    size, data = report.law.points.x.T
    order = np.argsort(size)
    return np.log(size[order]), np.log(report.compute / data)[order]


def _few(values: np.ndarray) -> np.ndarray:
    """The values there are, or a few in their range."""
    chosen = np.unique(values)
    if len(chosen) > _ALL:
        chosen = np.geomspace(*np.percentile(values, [3, 97]), _CURVES)
    return chosen


def _dots(axes: Axes, report: Report, at: np.ndarray, colours: np.ndarray, norm: LogNorm) -> None:
    points, held = report.law.points, report.law.held
    if points.y_se is not None:
        axes.errorbar(at, points.y, yerr=points.y_se, fmt="none", ecolor="#888888", elinewidth=0.8)
    for mask, marker, name, size, edge in (
        (~held, "o", "runs", 20, "white"),
        (held, "D", HELD, 26, _EDGE),
    ):
        if mask.any():
            axes.scatter(
                at[mask],
                points.y[mask],
                c=colours[mask],
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


def _finish(
    drawn: Figure, axes: Axes, report: Report, at: np.ndarray, x: str, colours: str, norm: LogNorm
) -> None:
    points = report.law.points
    scale = mpl.cm.ScalarMappable(norm, _COLOURS)
    drawn.colorbar(scale, ax=axes, label=words(colours), location="top", aspect=40)
    log_x(axes, at)
    axes.set_xlabel(words(x))
    axes.set_xlim(*spread(at)[[0, -1]])
    keep_to_points(axes, points.y.min(), points.y.max())
