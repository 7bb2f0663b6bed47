import pytest

from suan_jax.training import clock as module
from suan_jax.training.clock import Clock


@pytest.fixture
def now(monkeypatch):
    """A clock that the test moves."""
    moment = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: moment[0])
    return moment


def test_steps_that_follow_a_step_are_timed_and_nothing_else(now):
    clock = Clock()
    clock.step(8)  # its compilation came before
    assert clock.examples_per_second() is None
    for _ in range(3):
        now[0] += 2.0
        clock.step(8)
    assert clock.examples_per_second() == 4.0
    clock.pause()
    now[0] += 1000.0  # an evaluation
    clock.step(8)
    now[0] += 1.0
    clock.step(8)
    assert clock.examples_per_second() == 8.0  # since it was last asked
    assert (clock.examples, clock.seconds) == (32, 7.0)
    assert clock.trained == 8 * 6


def test_a_resumed_run_goes_on_counting(now):
    clock = Clock(**Clock(examples=50, seconds=5.0, trained=70).to_dict())
    clock.step(10)
    now[0] += 2.0
    clock.step(10)
    assert clock.to_dict() == {"examples": 60, "seconds": 7.0, "trained": 90}
    assert clock.examples_per_second() == 5.0
