import io

import pytest
import rich.console

from suan_jax import progress as progress_module
from suan_jax.progress import progress


def _console(terminal: bool) -> rich.console.Console:
    return rich.console.Console(file=io.StringIO(), force_terminal=terminal, width=120)


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_plain_line_every_ten_seconds_and_at_the_end(clock):
    console = _console(terminal=False)
    with progress(50, "training", initial=10, console=console) as bar:
        for _ in range(30):
            clock[0] += 1.0
            bar.advance(note="loss 0.5")
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "training: 20/50 (40 %), 1/s, 0:00:30 left, loss 0.5"
    assert [line.split(" (")[0] for line in lines] == [f"training: {n}/50" for n in (20, 30, 40)]


def test_what_was_done_before_does_not_count_for_the_rate(clock):
    with progress(1000, "training", initial=900, console=_console(terminal=False)) as bar:
        clock[0] += 2.0
        bar.advance(10)
        assert bar.done == 910
        assert bar.rate() == 5.0
        assert "0:00:18 left" in bar.line()


def test_what_was_compiled_does_not_count_for_the_rate(clock):
    with progress(100, "training", console=_console(terminal=False)) as bar:
        clock[0] += 60.0
        bar.restart_clock()
        assert bar.line() == "training: 0/100 (0 %)"  # no rate is known yet
        clock[0] += 5e-5
        bar.advance()
        assert bar.line() == "training: 1/100 (1 %)"  # nor now, when the step is only under way
        clock[0] += 2.0 - 5e-5
        bar.advance(3)
        assert bar.rate() == 2.0


def test_an_unknown_total_shows_a_count(clock):
    console = _console(terminal=False)
    with progress(None, "[rows]", console=console) as bar:
        clock[0] += 0.01
        bar.advance(2000)
    assert console.file.getvalue() == "[rows]: 2000, 200000/s\n"


def test_a_terminal_gets_a_bar_with_rate_and_time_left():
    console = _console(terminal=True)
    with progress(4, "[training]", initial=1, console=console) as bar:
        for _ in range(3):
            bar.advance(note="[loss]")
    text = console.file.getvalue()
    assert "\x1b[" in text
    for part in ("[training]", "4/4", "[loss]", "/s", "0:00:00"):
        assert part in text


def test_a_job_that_fails_does_not_look_done(clock):
    console = _console(terminal=False)
    with pytest.raises(RuntimeError), progress(3, "training", console=console):
        raise RuntimeError
    assert console.file.getvalue() == ""
