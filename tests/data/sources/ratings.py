"""A log of film ratings in the form of `suan_jax.data.sources.logs`."""

import numpy as np
import polars as pl

from suan_jax.data.sources.log_spec import (
    Bucketed,
    Categorical,
    Hashed,
    Keyed,
    LogSpec,
    MultiValued,
    Numeric,
)

DAY = 24 * 3600
START = 1_600_000_000
SPEC = LogSpec(
    impressions="ratings.csv",
    user="who",
    item="film",
    time="at",
    label="rating >= 4",
    candidate=(
        Categorical(name="film"),
        Categorical(name="genre"),
        MultiValued(name="cast", values=2, separator="|"),
    ),
    history=(Categorical(name="film"), Categorical(name="genre")),
    profile=(Categorical(name="who"), Hashed(name="city", ids=20), Numeric(name="income", log1p=True)),
    context=(Bucketed(name="length", buckets=3), Numeric(name="price")),
    category="genre",
    items=Keyed(path="films.csv"),
    users=Keyed(path="people.parquet", key="id"),
    test_from="2020-09-17T12:26:40",
)


def ratings(rows: int = 60) -> pl.DataFrame:
    random = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "who": random.integers(0, 6, rows),
            "film": random.integers(0, 8, rows),
            "at": START + np.arange(rows) * (DAY // 12),
            "rating": random.integers(1, 6, rows),
            "length": random.random(rows),
            "price": random.random(rows),
        }
    )


def write(folder, **tables: pl.DataFrame | None) -> None:
    default = {
        "ratings": ratings(),
        "films": pl.DataFrame(
            {"film": range(8), "genre": ["a", "b", None, "a"] * 2, "cast": ["x|y|z", "", None, "y"] * 2}
        ),
        "people": pl.DataFrame({"id": range(6), "city": list("pqrstu"), "income": [1.0, None, 3, 4, 5, 6]}),
    }
    for name, table in {**default, **tables}.items():
        if table is not None:
            table.write_csv(folder / f"{name}.csv")
            table.write_parquet(folder / f"{name}.parquet")
