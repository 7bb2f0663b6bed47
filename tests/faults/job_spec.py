"""The log of the jobs, and the spec file that prepares it."""

from pathlib import Path

import numpy as np
import polars as pl

from suan_jax.data.sources.log_spec import Categorical, LogSpec, Numeric
from tests.faults.planted import plant

USERS, IMPRESSIONS = 300, 12_000


def get_spec() -> LogSpec:
    plant()
    film = (Categorical(name="film"), Categorical(name="genre"))
    return LogSpec(
        impressions="log.csv",
        user="user",
        item="film",
        time="time",
        label="click",
        candidate=film,
        history=film,
        context=(Numeric(name="price"),),
        test_share=0.2,
    )


def write_log(folder: Path) -> None:
    """Writes the raw log."""
    random = np.random.default_rng(0)
    film = random.integers(500, size=IMPRESSIONS)
    columns = {
        "user": random.integers(USERS, size=IMPRESSIONS),
        "film": film,
        "genre": film % 20,
        "time": 1_600_000_000 + 60 * np.arange(IMPRESSIONS),
        "price": random.normal(size=IMPRESSIONS).round(3),
        "click": (random.random(IMPRESSIONS) < 0.2 + 0.4 * (film % 20 < 5)).astype(int),
    }
    folder.mkdir(parents=True)
    pl.DataFrame(columns).write_csv(folder / "log.csv")
