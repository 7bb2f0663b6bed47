"""A job that is killed and repeated, again and again, against the same job left alone."""

import signal

import pytest

from tests.training.runs import Job, assert_same_bits, last_state, rows, tiny, train_arguments

_OVERRIDES = (
    "train.steps=60",
    "train.eval_every=25",
    "train.eval_split=validation",
    "train.eval_batch_size=8",
    "checkpoint.every=7",
)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run left alone and one ended in every way: their work directories, and how their jobs ended."""
    folder = tmp_path_factory.mktemp("resume")
    alone = Job(*train_arguments(folder / "alone", *_OVERRIDES))
    disturbed = _disturb(folder / "disturbed")
    result = alone.end()
    assert result.returncode == 0, result.stderr
    return (folder / "alone", result), (folder / "disturbed", disturbed)


@pytest.fixture(scope="module")
def alone(both):
    return both[0]


@pytest.fixture(scope="module")
def disturbed(both):
    return both[1]


def _disturb(workdir):
    results = {}

    def start():
        return Job(*train_arguments(workdir, *_OVERRIDES))

    def at_step(step):
        return lambda: any(row["step"] >= step for row in rows(workdir))

    def saving(after):
        def folders():
            return (workdir / "checkpoints").glob("*.orbax-checkpoint-tmp")

        return lambda: any(int(folder.name.partition(".")[0]) > after for folder in folders())

    results["before the first step"] = start().until((workdir / "config.json").exists, signal.SIGTERM).end()
    results["killed"] = start().until(at_step(10), signal.SIGKILL).end()
    results["killed while saving"] = start().until(saving(20), signal.SIGKILL).end()
    results["stopped"] = start().until(at_step(40), signal.SIGTERM).end()
    results["stopped at the end"] = start().until(at_step(60), signal.SIGTERM).end()
    results["finished"] = start().end()
    results["repeated"] = start().end()
    return results


def test_every_job_ended_as_it_was_told_to(disturbed):
    results = disturbed[1]
    codes = {name: result.returncode for name, result in results.items()}
    assert codes == {
        "before the first step": 75,
        "killed": -signal.SIGKILL,
        "killed while saving": -signal.SIGKILL,
        "stopped": 75,
        "stopped at the end": 75,
        "finished": 0,
        "repeated": 0,
    }, results


def test_the_end_is_the_same_to_the_last_bit(alone, disturbed):
    config = tiny(*_OVERRIDES)
    expected, beside = last_state(alone[0], config)
    got, got_beside = last_state(disturbed[0], config)
    assert int(got.step) == 60
    assert_same_bits(got, expected)
    assert got_beside["iterator"] == beside["iterator"]
    assert got_beside["config"] == beside["config"]


def test_each_step_has_its_row_once(alone, disturbed):
    expected = rows(alone[0])
    assert [(row["step"], row.get("split")) for row in expected if "split" in row] == [
        (25, "validation"),
        (50, "validation"),
        (60, "test"),
    ]
    assert [row["step"] for row in expected if "split" not in row] == list(range(1, 61))
    assert rows(disturbed[0]) == expected


def test_a_finished_run_prints_its_result_again(alone, disturbed):
    results = disturbed[1]
    finished, repeated = results["finished"], results["repeated"]
    assert "test examples" in finished.stdout
    assert repeated.stdout == finished.stdout
    assert repeated.stderr == ""
    # But for the first line, which names the work directory, and the last, which tells the speed.
    assert finished.stdout.splitlines()[1:-1] == alone[1].stdout.splitlines()[1:-1]


def test_jobs_say_what_they_do_and_nothing_else(alone, disturbed):
    workdir, results = disturbed

    def sentences(result):
        lines = result.stderr.splitlines()
        return [line for line in lines if not line.startswith(("training: ", "evaluating ", "compiling "))]

    assert sentences(alone[1]) == []
    assert sentences(results["killed"])[0].startswith(f"{workdir} goes on at step ")
    assert sentences(results["stopped"])[0].startswith(f"{workdir} goes on at step ")
    assert sentences(results["finished"]) == [f"{workdir} goes on at step 60 of 60"]
    for name in ("before the first step", "stopped", "stopped at the end"):
        last = sentences(results[name])[-1]
        assert last.startswith("stopped by SIGTERM at step "), results[name].stderr
        assert last.endswith(f" of 60 and saved in {workdir}: repeat the same command to go on")
    for first, then in (("before the first step", "killed"), ("stopped", "stopped at the end")):
        step = sentences(results[first])[-1].split(" at step ")[1].split()[0]
        assert sentences(results[then])[0] == f"{workdir} goes on at step {step} of 60"


def test_nothing_half_written_is_left(disturbed):
    workdir, _ = disturbed
    assert sorted(path.name for path in workdir.iterdir()) == [
        "checkpoints",
        "config.json",
        "metrics.jsonl",
        "summary.json",
        "versions.json",
    ]
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["56", "60"]
