import dataclasses

import numpy as np
import polars as pl
import pytest

from suan_jax.config import DataConfig
from suan_jax.data import train_iterator
from suan_jax.data.packing import training_rows
from suan_jax.data.preparation import prepare
from suan_jax.data.raw_log import LABEL, ORDER, TIME, USER
from suan_jax.data.sources import logs
from suan_jax.data.sources.log_spec import (
    Bucketed,
    Negatives,
)
from suan_jax.data.sources.negatives import sample_negatives
from suan_jax.data.store import open_store
from suan_jax.errors import UserError
from tests.data.sources.ratings import DAY, SPEC, START, write


def _clicks(count=4_000):
    random = np.random.default_rng(0)
    time = np.sort(random.integers(START, START + 40 * DAY, count))
    # Item 0 is as popular as all others together, and item 9 comes up on day 20.
    item = np.where(random.random(count) < 0.5, 0, random.integers(1, 9, count))
    return time, np.where((time > START + 20 * DAY) & (random.random(count) < 0.3), 9, item)


@pytest.mark.parametrize("kind", ["uniform", "popularity", "recent"])
def test_negatives_are_known_items_other_than_the_click(kind):
    time, item = _clicks()
    drawn = sample_negatives(time, item, Negatives(per_positive=3, kind=kind, days=2))
    assert drawn.shape == (len(time), 3)
    assert (drawn != item[:, None]).all()
    row, _ = np.nonzero(drawn >= 0)
    assert len(row) > 0.99 * drawn.size
    first = np.array([time[item == code].min() for code in range(10)])
    assert (first[drawn[drawn >= 0]] < time[row]).all()
    again = sample_negatives(time, item, Negatives(per_positive=3, kind=kind, days=2))
    np.testing.assert_array_equal(drawn, again)
    other = sample_negatives(time, item, Negatives(per_positive=3, kind=kind, days=2, seed=1))
    assert (drawn != other).any()


def test_negatives_follow_their_popularity():
    time, item = _clicks()
    share = {}
    for kind in ("uniform", "popularity", "recent"):
        drawn = sample_negatives(time, item, Negatives(per_positive=3, kind=kind, days=2))
        late = (time > START + 23 * DAY) & (item != 0) & (item != 9)
        share[kind] = [(drawn[late] == code).mean() for code in (0, 9)]
    assert share["uniform"][0] < 0.2 < 0.4 < share["popularity"][0]
    assert share["popularity"][1] + 0.05 < share["recent"][1]


def test_sampled_negatives_take_the_item_table_and_the_context_of_their_click(tmp_path):
    write(tmp_path)
    spec = dataclasses.replace(SPEC, label=None, negatives=Negatives(per_positive=2))
    log = logs.read(tmp_path, spec)
    rows = log.impressions.collect()
    assert log.events.collect().height == 60
    clicks, negatives = rows.filter(pl.col(LABEL) == 1), rows.filter(pl.col(LABEL) == 0)
    assert clicks.height == 60 and 100 < negatives.height <= 120
    assert rows[ORDER].n_unique() == rows.height
    pairs = negatives.join(clicks, on=[USER, TIME])
    assert pairs.height == negatives.height
    assert (pairs["price"] == pairs["price_right"]).all() and (pairs["film"] != pairs["film_right"]).all()
    genres = dict(enumerate(["a", "b", None, "a"] * 2))
    assert all(genres[int(film)] == genre for film, genre in rows.select("film", "genre").rows())
    with pytest.raises(UserError, match="'length' is a column"):
        candidate = (*SPEC.candidate, Bucketed(name="length"))
        logs.read(tmp_path, dataclasses.replace(spec, candidate=candidate, context=()))


def test_a_click_and_its_negatives_are_one_request_to_packing(tmp_path):
    write(tmp_path)
    spec = dataclasses.replace(SPEC, label=None, negatives=Negatives(per_positive=2))
    prepare(logs.read(tmp_path, spec), tmp_path / "store", "logs")
    data = DataConfig(max_len=5, packing="request", candidates=3)
    store = open_store(tmp_path / "store")
    batch = next(train_iterator(store, data, 3 * training_rows(store, data).total, seed=0))
    assert (batch.label.sum(axis=1) == 1).all()
    assert batch.candidate_mask.mean() > 0.9
