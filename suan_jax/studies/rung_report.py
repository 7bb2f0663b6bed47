"""The next rung of a ladder on a terminal."""

from __future__ import annotations

from pathlib import Path

from suan_jax.studies.rung import PREDICTED, Rung, root_mean_square
from suan_jax.table import print_table


def print_rung(rung: Rung, workdir: Path) -> None:
    """Prints the predictions, what was measured, and how other forms did."""
    columns = ("predicted", "low", "high", "measured", "measured_se", "error", "inside")
    x = rung.report.x
    rows = [[point["cell"], *point["x"].values(), *map(point.get, columns)] for point in rung.points]
    title = (
        f"{workdir}/{PREDICTED}: {rung.report.y}; low to high holds a run in 95 of 100 if the law is right"
    )
    print_table(title, ("cell", *x, *columns), rows)
    own = {"form": rung.report.law.form, "rmse": root_mean_square(rung.points)}
    if own["rmse"] is not None:
        rows = [[each["form"], each.get("rmse")] for each in (own, *rung.rivals)]
        print_table("\nbeside its rivals, fitted to the same runs", ("form", "RMSE of the rung"), rows)
