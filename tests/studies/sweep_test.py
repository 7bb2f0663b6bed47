import csv
import dataclasses

import pytest

from suan_jax.config_dict import to_dict
from suan_jax.errors import UserError
from suan_jax.files import read_json, write_json
from suan_jax.models.suan import Suan
from suan_jax.runs import points
from suan_jax.studies import SweepConfig, grid, sweep
from suan_jax.studies.sweep import cells as cells_of
from tests.studies.stand_in import train_by

_CONFIG = SweepConfig(
    model=Suan(head=(8,)),
    cells=(*grid({"model.grade": (0, 1), "train.seed": range(2)}), {"data.max_len": 9}),
    rule="none",
)


@pytest.fixture
def trained(monkeypatch):
    """(grade, seed, length) of the runs that a stand-in for training made; grade 1, seed 1 fails once."""
    calls = []

    def train(config, workdir):
        point = (config.model.grade, config.train.seed, config.data.max_len)
        if (workdir / "summary.json").exists():
            return read_json(workdir / "summary.json")
        calls.append(point)
        if point[:2] == (1, 1) and calls.count(point) == 1:
            raise UserError("out of luck")
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "config.json", to_dict(config))
        summary = {"grade": point[0], "seed": point[1], "auc": 0.5 + 0.1 * point[0], "params": {"body": 7}}
        write_json(workdir / "summary.json", summary)
        return summary

    train_by(monkeypatch, train)
    return calls


def _rows(workdir):
    return list(csv.DictReader((workdir / "runs.csv").read_text().splitlines()))


@pytest.mark.smoke
def test_each_combination_once_and_the_last_axis_first():
    assert grid({"a": (0, 1), "b": "xy"}) == (
        {"a": 0, "b": "x"},
        {"a": 0, "b": "y"},
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
    )
    names = [cell.name for cell in cells_of(_CONFIG)]
    assert names[:2] == ["grade=0,seed=0", "grade=0,seed=1"]
    assert names[-1] == "max_len=9"
    assert [cell.config.data.max_len for cell in cells_of(_CONFIG)][-1] == 9


def test_a_failed_cell_is_told_and_tried_again_and_the_others_are_kept(trained, tmp_path):
    result = sweep(_CONFIG, tmp_path)
    assert result.failures == {"grade=1,seed=1": "out of luck"}
    assert result.unfinished == ["grade=1,seed=1"]
    assert [row["cell"] for row in _rows(tmp_path)] == [
        *("grade=0,seed=0", "grade=0,seed=1", "grade=1,seed=0", "max_len=9"),
    ]
    result = sweep(_CONFIG, tmp_path)
    assert not result.failures and not result.unfinished
    assert len(trained) == 6  # each once, and the failed one twice
    assert {row["params_body"] for row in _rows(tmp_path)} == {"7"}
    assert {row["rule"] for row in _rows(tmp_path)} == {"none"}
    assert {row["sweep"] for row in _rows(tmp_path)} == {tmp_path.name}


def test_shares_cover_every_cell_once(trained, tmp_path):
    for part in (2, 0, 1):
        result = sweep(_CONFIG, tmp_path, part, parts=3)
    assert sorted(trained) == sorted({*trained})
    assert len(trained) == 5
    assert len(result.rows) == 4


def test_a_looped_run_has_a_row_for_each_number_of_loops():
    summary = {"auc": 0.7, "log_loss": 0.5, "inferred_loops": 1, "loops_trained": 2, "params": {"body": 7}}
    summary |= {"auc_by_loops": [0.6, 0.7, 0.71], "flops_by_loops": [1.0, 2.0, 3.0], "flops_per_example": 2.0}
    rows = points(summary)
    assert [(row["loops_inferred"], row["auc"], row["flops_per_example"]) for row in rows] == [
        *((0, 0.6, 1.0), (1, 0.7, 2.0), (2, 0.71, 3.0)),
    ]
    assert [row.get("log_loss") for row in rows] == [None, 0.5, None]
    assert {row["params_body"] for row in rows} == {7}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cells": ()}, "config.cells is empty"),
        ({"cells": ({"train.seed": 1}, {"train.seed": 1})}, "config.cells has seed=1 twice"),
        (
            {"cells": ({"train.sede": 1},)},
            "config.train.sede is not a field, the nearest is config.train.s",
        ),
        ({"cells": ({"train.seed": "x"},)}, "config.train.seed is 'x', expected int"),
    ],
)
def test_a_wrong_sweep_is_one_sentence_and_runs_nothing(changes, sentence, trained, tmp_path):
    with pytest.raises(UserError, match=sentence):
        sweep(dataclasses.replace(_CONFIG, **changes), tmp_path)
    assert not trained and not list(tmp_path.iterdir())


def test_another_sweep_in_the_same_directory_is_refused_before_anything_runs(trained, tmp_path):
    sweep(_CONFIG, tmp_path)
    seen = len(trained)
    other = dataclasses.replace(_CONFIG, train=dataclasses.replace(_CONFIG.train, steps=9))
    with pytest.raises(UserError, match=r"is of another study: .*grade=0,seed=0 holds .*train.steps: 0 != 9"):
        sweep(other, tmp_path)
    assert len(trained) == seen


def test_a_share_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--part is 3 of --parts=3, expected 0 to 2"):
        sweep(_CONFIG, tmp_path, 3, 3)


def test_cells_that_train_together_are_in_one_share(trained, tmp_path):
    shares = []
    for part in range(3):
        seen = len(trained)
        sweep(_CONFIG, tmp_path, part, parts=3, together=2)
        shares.append([(grade, seed) for grade, seed, _ in trained[seen:]])
    assert shares == [[(0, 0), (0, 1)], [(1, 0), (1, 1)], [(0, 0)]]
