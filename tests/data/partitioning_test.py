import numpy as np
import polars as pl
import pytest

from suan_jax.data.blocking import RANK
from suan_jax.data.partitioning import PARTITION, Plan, add_tallies, assign_partitions, plan, tally
from suan_jax.data.raw_log import ORDER, TEST, TIME, USER, RawLog
from suan_jax.schema import Schema


def _raw(times: np.ndarray, tested: int, validation: float = 0.1) -> RawLog:
    """Impressions at these times, the last `tested` of them for the test; no events."""
    last = np.sort(times)[len(times) - tested]
    columns = {USER: np.arange(len(times)), TIME: times, ORDER: np.arange(len(times)), TEST: times >= last}
    events = pl.LazyFrame({USER: [], TIME: [], ORDER: []})
    return RawLog(pl.LazyFrame(columns), events, Schema({}, (), ()), validation=validation)


def _plan(raw: RawLog, rows: int = 50, events: int = 0) -> Plan:
    return plan(tally(raw, raw.impressions), events, raw, "test", rows)


@pytest.mark.smoke
def test_validation_is_the_share_asked_for_where_times_differ():
    times = np.random.default_rng(0).permutation(1_000)
    assert _plan(_raw(times, tested=200, validation=0.25)).first_held_out == 600


@pytest.mark.parametrize("seed", range(5))
def test_validation_begins_at_the_time_that_sorting_finds(seed):
    random = np.random.default_rng(seed)
    raw = _raw(random.integers(0, 40, 300), tested=60)
    train = np.sort(raw.impressions.filter(~pl.col(TEST)).collect()[TIME].to_numpy())
    assert _plan(raw).first_held_out == train[len(train) - round(0.1 * len(train))]


def test_tallies_of_pieces_add_up():
    raw = _raw(np.random.default_rng(1).integers(0, 40, 300), tested=60)
    pieces = [tally(raw, raw.impressions.slice(start, 70)) for start in range(0, 300, 70)]
    assert add_tallies(pieces).sort(TIME).equals(tally(raw, raw.impressions).sort(TIME))


def test_partitions_hold_the_rows_asked_for_and_follow_the_rank():
    raw = _raw(np.arange(300), tested=60)
    assert _plan(raw).partitions == 6 and _plan(raw, events=301).partitions == 7
    users = assign_partitions(pl.DataFrame({USER: np.arange(5_000)}), 7).sort(RANK)
    assert users[PARTITION].is_sorted() and users[PARTITION].unique().to_list() == list(range(7))
    sizes = users[PARTITION].value_counts()["count"]
    assert sizes.max() < 1.2 * sizes.min()
