"""The figure of a law: points, the law and its band, and how far from the ceiling, on logarithmic axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from suan_jax.figures import figure, look
from suan_jax.scaling import figure_joint
from suan_jax.scaling.drawing import (
    LINE,
    curve,
    dots,
    gap,
    gap_words,
    keep_to_points,
    legend_entries,
    log_x,
    spread,
    tex_equation,
    words,
)
from suan_jax.scaling.intervals import percentiles
from suan_jax.scaling.report import Report


def draw(report: Report, out: Path) -> None:
    """Writes fit.png and fit.svg."""
    form = report.law.form
    panels = 2 if "E" in report.law.parameters and (form != "chinchilla" or report.frontier) else 1
    with figure(
        out / "fit", width=6.0 if panels == 1 else 9.0, height=4.4 if form == "chinchilla" else 3.8
    ) as drawn:
        if form == "chinchilla":
            figure_joint.draw(drawn, report)
        else:
            _one_axis(drawn, report, panels)


def _one_axis(drawn: Figure, report: Report, panels: int) -> None:
    """y against the one number that the law is a function of and, where it has a ceiling, how far it is."""
    law = report.law
    axes, *more = np.ravel(drawn.subplots(1, panels))
    if law.form == "loops":
        once, recurrent, loops = law.points.x.T
        phi = law.parameters["phi"].value
        at = once + loops**phi * recurrent
        grid = spread(at)
        x = np.stack([grid, np.zeros(LINE), np.ones(LINE)], -1)
        label = (
            rf"effective parameters $N_\mathrm{{once}} + r^\varphi N_\mathrm{{rec}}$, $\varphi = {phi:.2f}$"
        )
        parts = [(loops == number, f"loops: {number:g}") for number in np.unique(loops)]
        colour = "#000000"
    else:
        at, label = law.points.x[:, 0], words(report.x[0])
        grid = spread(at)
        x = grid[:, None]
        parts = [(np.ones(len(at), bool), "runs")]
        colour = look(1)["color"]
    for panel in (axes, *more):
        log_x(panel, at)
        panel.set_xlabel(label)
    for index, (chosen, name) in enumerate(parts):
        dots(axes, report, at, chosen, look(index), name)
        for panel in more:
            gap(panel, report, at, chosen, look(index), name)
    curve(axes, law, grid, x, colour, tex_equation(law))
    axes.set_ylabel(words(report.y))
    _legend(axes, report)
    for panel in more:
        _gap_of_law(panel, report, grid, x, colour)


def _gap_of_law(axes: Axes, report: Report, at: np.ndarray, x: np.ndarray, colour: str) -> None:
    """The law as a straight line, with the band of the bootstrap's laws below their own ceilings."""
    law = report.law
    bound = law.parameters["E"].value
    axes.plot(at, np.abs(1 - law.predict(x) / bound), color=colour, zorder=2)
    bounds = law.sampled_parameters()["E"][:, None]
    low, high = percentiles(np.abs(1 - law.sampled(x) / bounds))
    axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0, label="95 % band", zorder=1)
    axes.set_yscale("log")
    axes.set_ylabel(gap_words(report))
    axes.legend(loc="upper right")


def _legend(axes: Axes, report: Report) -> None:
    law = report.law
    keep_to_points(axes, law.points.y.min(), law.points.y.max())
    if "E" in law.parameters:
        bound = law.parameters["E"].value
        low, high = axes.get_ylim()
        if low < bound < high:
            axes.axhline(bound, color="#666666", linestyle=":", linewidth=1, label=f"E = {bound:.4f}")
    axes.legend(*legend_entries(axes), loc="lower right" if law.rising else "upper right")
