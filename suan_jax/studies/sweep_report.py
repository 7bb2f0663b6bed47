"""A sweep on a terminal."""

from __future__ import annotations

from pathlib import Path

from suan_jax.studies.sweep import Sweep
from suan_jax.table import print_table

_COLUMNS = ("cell", "model", "grade", "max_len", "train_fraction", "params_body", "auc", "auc_se", "log_loss")


def print_sweep(found: Sweep, workdir: Path) -> None:
    """Prints the runs that have finished, and the names of the others."""
    rows = [[row.get(name) for name in _COLUMNS] for row in found.rows]
    print_table(f"{workdir}/runs.csv", _COLUMNS, rows)
    if found.unfinished:
        print(f"not finished: {', '.join(found.unfinished)}")
