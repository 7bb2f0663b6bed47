import time

import numpy as np
import pytest

from suan_jax.benchmark import timing
from suan_jax.benchmark.timing import Timing, interleaved


@pytest.mark.smoke
def test_functions_take_turns_and_every_call_has_its_own_number(monkeypatch):
    monkeypatch.setattr(timing, "_REPEAT_SECONDS", 1e-9)  # one call a repeat
    calls = []

    def function(name):
        return lambda number: calls.append((name, number))

    timings = interleaved({"a": function("a"), "b": function("b")}, repeats=3)
    assert [name for name, _ in calls] == ["a", "a", "b", "b", "a", "b", "a", "b", "a", "b"]
    assert [number for name, number in calls if name == "b"] == [0, 1, 2, 3, 4]
    assert len(timings["a"].seconds) == 3


def test_a_call_is_as_long_as_it_takes_however_many_make_a_repeat():
    timings = interleaved({"sleep": lambda _: time.sleep(0.002)}, repeats=3)
    assert 0.002 <= timings["sleep"].median() < 0.02


def test_a_ratio_compares_repeats_of_the_same_turn():
    # The machine was ten times slower in the last two turns: a ratio of medians would say 20.
    other = Timing(np.array([1.0, 1.0, 1.0, 10.0, 10.0]))
    double = Timing(np.array([2.0, 2.0, 20.0, 20.0, 20.0]))
    assert double.ratio(other) == 2.0
    fields = double.fields()
    assert fields["ms_low"] <= fields["ms"] <= fields["ms_high"]
    assert fields["ms"] == pytest.approx(2e4)
