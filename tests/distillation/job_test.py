"""The distillation job as its users start it: killed and repeated, and what it leaves behind."""

import json
import shutil
import signal

import pytest

from suan_jax.distillation import DistillConfig, distill
from suan_jax.distillation.setup import set_up_offline, set_up_online
from suan_jax.errors import UserError
from suan_jax.training.evaluate_run import evaluate_run
from suan_jax.training.loop import train
from suan_jax.training.restore import restore_run
from tests.distillation.tiny_distill import arguments, tiny
from tests.training import runs
from tests.training.runs import Job, arrays, assert_same_bits, last_state, rows

_OVERRIDES = ("train.steps=30", "checkpoint.every=4", "train.eval_every=10")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("distill")


@pytest.fixture(scope="module")
def teacher(folder):
    """A SUAN of a longer history that has been trained."""
    config = runs.tiny("train.steps=10", "data.max_len=11", arguments="model=suan")
    return folder / "teacher", train(config, folder / "teacher")


def _alone_and_killed(folder, **teacher):
    """Work directories of a run left alone and of one that was killed on its way."""
    alone, killed = folder / "alone", folder / "killed"
    first = Job(*arguments(alone, *_OVERRIDES, **teacher), launch="distill").end()
    assert first.returncode == 0, first.stderr

    def far_enough():
        return any(row["step"] >= 17 for row in rows(killed))

    job = Job(*arguments(killed, *_OVERRIDES, **teacher), launch="distill")
    assert job.until(far_enough, signal.SIGKILL).end().returncode == -signal.SIGKILL
    last = Job(*arguments(killed, *_OVERRIDES, **teacher), launch="distill").end()
    assert last.returncode == 0, last.stderr
    assert "killed goes on at step " in last.stderr
    return first, alone, killed


@pytest.fixture(scope="module")
def online(folder):
    return _alone_and_killed(folder / "online")


@pytest.fixture(scope="module")
def offline(folder, teacher):
    return _alone_and_killed(folder / "offline", teacher=teacher[0])


def test_a_killed_run_and_its_teacher_end_as_if_it_had_not_been(online):
    _, alone, killed = online
    setup = set_up_online(tiny(*_OVERRIDES, "distillation.online=True"))
    expected, _ = last_state(alone, setup)
    assert int(expected.step) == int(expected.companion.step) == 30
    assert_same_bits(last_state(killed, setup)[0], expected)
    assert rows(killed) == rows(alone)


def test_a_killed_student_of_a_trained_teacher_ends_as_if_it_had_not_been(offline, teacher):
    _, alone, killed = offline
    setup = set_up_offline(tiny(*_OVERRIDES), teacher[0])
    expected, beside = last_state(alone, setup)
    assert beside["iterator"]["taught_by"] == setup.taught_by != ""
    assert_same_bits(last_state(killed, setup)[0], expected)
    assert rows(killed) == rows(alone)


@pytest.mark.parametrize("how", ["online", "offline"])
def test_the_work_directory_is_that_of_a_run_of_the_student(how, request):
    first, alone, _ = request.getfixturevalue(how)
    summary = json.loads((alone / "summary.json").read_text())
    assert evaluate_run(alone, "test")["auc"] == pytest.approx(summary["auc"])
    setup, state = restore_run(alone)
    assert isinstance(setup.config, DistillConfig)
    assert arrays(state).keys() == arrays(setup.fresh_state()).keys()
    assert summary["model"] == "din" and "its teacher, " in first.stdout
    saved = {path.name for path in (alone / "checkpoints" / "30").iterdir() if path.is_dir()}
    assert saved == {"state", "iterator", "clock", "config"} | ({"companion"} if how == "online" else set())


@pytest.mark.parametrize("how", ["online", "offline"])
def test_another_run_starts_from_a_student_as_from_any_other(how, request, tmp_path):
    alone = request.getfixturevalue(how)[1]
    summary = train(runs.tiny("train.steps=1", "optimizer.learning_rate=0", f"init_from={alone}"), tmp_path)
    _, student = restore_run(alone)
    assert_same_bits(restore_run(tmp_path)[1].params, student.params)
    assert summary["steps"] == 1 and "teacher" not in summary


def test_the_summary_tells_the_teacher_s_point(offline, teacher):
    workdir, point = teacher
    summary = json.loads((offline[1] / "summary.json").read_text())
    told = summary["teacher"]
    assert (told["model"], told["grade"], told["max_len"]) == ("suan", 0, 11)
    assert told["workdir"] == str(workdir)
    assert told["auc"] == pytest.approx(point["auc"]) and told["log_loss"] == pytest.approx(point["log_loss"])
    assert told["params_body"] == point["params"]["body"]
    assert summary["distillation"] == {"online": False, "weight": 1.0, "temperature": 2.0}
    assert summary["max_len"] == 8


def test_another_teacher_does_not_take_over(offline, teacher, folder):
    config = tiny(*_OVERRIDES, f"distillation.teacher_from={teacher[0]}")
    unfinished = folder / "unfinished"
    shutil.copytree(offline[1], unfinished)
    (unfinished / "summary.json").unlink()
    other = folder / "other_teacher"
    train(runs.tiny("train.steps=4", "data.max_len=9"), other)
    with pytest.raises(UserError, match="unfinished was taught by another checkpoint of its teacher, or by"):
        distill(config, unfinished, other)
    with pytest.raises(UserError, match=r"holds a run of another config \(distillation.teacher_from: "):
        distill(tiny(*_OVERRIDES, f"distillation.teacher_from={other}"), unfinished)
    moved = folder / "moved"
    shutil.copytree(teacher[0], moved)
    assert distill(config, unfinished, moved)["steps"] == 30


def test_a_run_goes_on_with_another_spelling_of_its_teacher_s_path(offline, teacher, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for spelt in ("teacher", "./teacher/", f"{folder}/offline/../teacher"):
        unfinished = folder / "respelt"
        shutil.copytree(offline[1], unfinished)
        (unfinished / "summary.json").unlink()
        assert distill(tiny(*_OVERRIDES, f"distillation.teacher_from={spelt}"), unfinished)["steps"] == 30
        told = json.loads((unfinished / "config.json").read_text())["distillation"]["teacher_from"]
        assert told == str(teacher[0])
        shutil.rmtree(unfinished)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            (),
            r"--teacher=WORKDIR is missing: give the teacher's work directory, or --",
        ),
        (
            ("distillation.online=True", "distillation.teacher_from=x"),
            r"config.distillation.teacher_from is 'x', expected no --teacher, as conf",
        ),
        (
            ("distillation.weight=-1",),
            r"config.distillation.weight is -1.0, expected 0 to 1000",
        ),
        (
            ("distillation.temperature=0",),
            r"config.distillation.temperature is 0.0, expected 0.001 to 1000",
        ),
        (("distillation.temperature=1e12",), "config.distillation.temperature is 1000000000000.0, expected"),
        (
            ("data.packing=request", "data.candidates=4"),
            r"config.data.packing is 'request', expected 'none', as student and teacher",
        ),
        (("distillation.dtype=float16",), r"config.distillation.dtype is 'float16', expected 'float32', 'b"),
        (("distillation.max_len=-1",), r"config.distillation.max_len is -1, expected 0 or a positive number"),
        (
            ("distillation.online=True", "distillation.teacher.embedding_width=0"),
            r"the teacher of config.distillation: config.model.embedding_width is 0, expected a positive",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(overrides, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        distill(tiny(*overrides), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_the_online_teacher_s_model_can_be_any():
    config = tiny(
        "distillation.online=True", "distillation.teacher.name=hstu", "distillation.teacher.layers=1"
    )
    assert config.distillation.teacher.name == "hstu" and config.distillation.teacher.embedding_width == 5
    assert config.model.name == "din"
