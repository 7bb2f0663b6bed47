import contextlib
import json

import pytest

from suan_jax.config_dict import to_dict
from suan_jax.errors import UserError
from suan_jax.training.workdir import (
    check_unclaimed,
    claim,
    hold,
    read_config,
    read_scores,
    read_summary,
    release,
)
from tests.training.runs import tiny


def test_a_claimed_directory_is_its_configs_alone(tmp_path):
    config = tiny()
    check_unclaimed(tmp_path / "run", config)
    assert claim(tmp_path / "run", config)
    assert not claim(tmp_path / "run", config)
    check_unclaimed(tmp_path / "run", config)
    assert read_config(tmp_path / "run") == config
    other = tiny("train.steps=7", "optimizer.learning_rate=0.5", arguments="model=suan")
    with pytest.raises(UserError) as error:
        check_unclaimed(tmp_path / "run", other)
    sentence = str(error.value)
    for part in (
        "train.steps: 20 != 7",
        "optimizer.learning_rate: 0.001 != 0.5",
        "model.name: 'din' != 'suan'",
    ):
        assert part in sentence
    assert "mesh" not in sentence
    release(tmp_path / "run")
    check_unclaimed(tmp_path / "run", other)


def test_a_run_may_go_on_elsewhere(tmp_path):
    claim(tmp_path, tiny())
    elsewhere = tiny("mesh.model=2", "mesh.data=4", "data.threads=3")
    check_unclaimed(tmp_path, elsewhere)
    claim(tmp_path, elsewhere)
    assert read_config(tmp_path).mesh.model == 2


def test_a_work_directory_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "run"
    path.write_text("")
    check_unclaimed(path, tiny())
    with pytest.raises(UserError, match=rf"cannot make the work directory {path}: File exists"):
        claim(path, tiny())


def test_one_job_at_a_time_holds_a_work_directory(tmp_path):
    with contextlib.ExitStack() as first:
        hold(tmp_path / "run", first)
        with contextlib.ExitStack() as second:
            with pytest.raises(UserError, match="run is in use by another process"):
                hold(tmp_path / "run", second)
            hold(tmp_path / "other", second)
    with contextlib.ExitStack() as third:
        hold(tmp_path / "run", third)
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("left", ["summary.json", "checkpoints/20"])
def test_a_run_whose_config_is_gone_is_not_taken_for_another(tmp_path, left):
    (tmp_path / left).mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds a run without its config\.json"):
        check_unclaimed(tmp_path, tiny())


_HEADER = b"{'descr': [('user', '<i8'), ('label', '|u1'), ('logit', '<f4')]"
_DAMAGED = b"\x93NUMPY\x01\x00\x76\x00" + _HEADER.replace(b"[", b"{").ljust(117) + b"\n"


@pytest.mark.parametrize("content", [None, b"", b"x\n", b"\x93NUMPY\x01\x00", b"PK\x03\x04", _DAMAGED])
def test_missing_or_damaged_scores_are_named(tmp_path, content):
    if content is not None:
        (tmp_path / "scores.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"scores\.npy is missing or damaged: remove the summary\.json"):
        read_scores(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"auc": 0.', '{"auc": NaN}', '{"auc": "x"}'])
def test_a_damaged_summary_is_refused(tmp_path, content):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(UserError, match=r"summary\.json is not the summary of a run: remove it and repeat"):
        read_summary(tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "is not the config of a training run"),
        ("{}", "is not the config of a training run"),
        (json.dumps({**to_dict(tiny()), "trian": 1}), "config.trian is not a field"),
        (json.dumps({**to_dict(tiny()), "train": {"steps": "x"}}), "config.train.steps is 'x', expected int"),
    ],
)
def test_a_config_that_is_none_is_refused(tmp_path, content, sentence):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=sentence):
        read_config(tmp_path)


def test_a_directory_without_a_config_is_no_run(tmp_path):
    with pytest.raises(UserError, match="is not a work directory of a training run"):
        read_config(tmp_path)
