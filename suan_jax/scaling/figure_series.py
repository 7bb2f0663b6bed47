"""The figure of several laws: each with its points and its band, and how far each is from its ceiling.

Kinds of runs without a law are there as points.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from suan_jax.figures import figure, legend_below, look
from suan_jax.scaling.drawing import (
    curve,
    dots,
    gap,
    gap_words,
    keep_to_points,
    legend_entries,
    log_x,
    marks,
    spread,
    words,
)
from suan_jax.scaling.series import Series


def draw(series: Series, out: Path) -> None:
    """Writes series.png and series.svg; of laws of one column of x."""
    reports = series.reports
    first = next(iter(reports.values()))
    bounded = "E" in first.law.parameters
    with figure(out / "series", width=9.0 if bounded else 6.0, height=4.2) as drawn:
        axes, *more = np.ravel(drawn.subplots(1, 1 + bounded))
        for index, (label, report) in enumerate(reports.items()):
            law, style = report.law, look(index)
            at = law.points.x[:, 0]
            grid, every = spread(at), np.ones(len(at), bool)
            curve(axes, law, grid, grid[:, None], style["color"])
            dots(axes, report, at, every, style, words(label))
            for panel in more:
                share = np.abs(1 - law.predict(grid) / law.parameters["E"].value)
                panel.plot(grid, share, color=style["color"], zorder=2)
                gap(panel, report, at, every, style, words(label))
        for index, (label, points) in enumerate(series.loose.items(), len(reports)):
            name = f"{words(label)}, no law"
            marks(axes, points.x[:, 0], points.y, points.y_se, look(index), name, "full")
        drawn_points = [report.law.points for report in reports.values()] + list(series.loose.values())
        for panel in (axes, *more):
            log_x(panel, np.concatenate([points.x[:, 0] for points in drawn_points]))
            panel.set_xlabel(words(first.x[0]))
        axes.set_ylabel(words(first.y))
        low, high = (each([each(points.y) for points in drawn_points]) for each in (np.min, np.max))
        keep_to_points(axes, low, high)
        for panel in more:
            panel.set_yscale("log")
            panel.set_ylabel(gap_words(first))
        legend_below(drawn, *legend_entries(axes))
