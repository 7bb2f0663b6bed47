import csv
import dataclasses
import importlib.util
import json
import pathlib

import numpy as np
import pytest

from suan_jax import config_file
from suan_jax.errors import UserError
from suan_jax.evaluation import adaptive, metrics
from suan_jax.evaluation.depths import headroom
from suan_jax.studies import depths_report
from suan_jax.studies.depths import study_depths
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.loop import train
from suan_jax.training.restore import restore_run
from suan_jax.training.workdir import claim
from tests.drawn import words
from tests.training.runs import Job

pytestmark = pytest.mark.usefixtures("own_models")
LOOPED = pathlib.Path(__file__).parents[1] / "training" / "looped_config.py"


def _config(arguments="", *overrides):
    given = [f"--config={LOOPED}:{arguments}", "--config.train.steps=10"]
    return config_file.load_config([*given, *map("--config.{}".format, overrides)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two loops, what its job printed, and the study."""
    workdir = tmp_path_factory.mktemp("depths") / "run"
    summary = train(_config(), workdir)
    return workdir, summary, study_depths(workdir)


def test_fixed_depths_are_those_of_the_summary(run):
    _, summary, study = run
    assert [row["depth"] for row in study.fixed] == [0, 1, 2]
    assert [row["auc"] for row in study.fixed] == pytest.approx(summary["auc_by_loops"], abs=1e-4)
    assert [row["flops"] for row in study.fixed] == summary["flops_by_loops"]
    assert (study.fixed[0]["difference"], study.fixed[0]["difference_se"]) == (0, 0)
    assert study.examples == summary["evaluated_examples"]
    assert not study.fitted_on_trained


def test_rules_are_fitted_on_validation_and_judged_on_test(run):
    workdir, _, study = run
    setup, state = restore_run(workdir)
    evaluation = Evaluation(setup)
    known, judged = (evaluation.scores(state, split, depths=True) for split in ("validation", "test"))
    gate = adaptive.fit_gate(known.depths)
    at = adaptive.thresholds(gate.scores(known.depths))
    np.testing.assert_allclose([row["threshold"] for row in study.rules["gate"]], at, rtol=1e-4, atol=1e-6)
    depth = adaptive.stop_depth(gate.scores(judged.depths), at[len(at) // 2])
    row = study.rules["gate"][len(at) // 2]
    assert row["mean_depth"] == pytest.approx(depth.mean(), abs=1e-3)
    logit = judged.depths[depth, np.arange(len(depth))]
    assert row["auc"] == pytest.approx(metrics.auc(judged.label, logit), abs=1e-3)
    assert study.headroom.oracle == pytest.approx(headroom(judged.label, judged.depths).oracle, abs=1e-4)


def test_flops_of_a_rule_count_every_exit_on_the_way(run):
    _, summary, study = run
    exit_flops = summary["flops_by_loops"][0] - 2 * 2 * 4 * 6  # all but the entry
    for rule in ("change", "gate"):
        row = study.rules[rule][0]
        assert row["mean_depth"] == 2
        assert row["flops"] == pytest.approx(summary["flops_by_loops"][2] + 2 * exit_flops)
        assert row["random_flops"] == summary["flops_by_loops"][2]


def test_the_job_prints_and_writes(run):
    workdir, _, study = run
    done = Job(f"--workdir={workdir}", f"--config={LOOPED}", launch="depths").end()
    assert done.returncode == 0, done.stderr
    assert "oracle over the depths" in done.stdout and "control: " in done.stdout
    written = json.loads((workdir / "depths.json").read_text())
    assert written["headroom"]["oracle"] == pytest.approx(study.headroom.oracle, abs=1e-4)
    rows = list(csv.DictReader((workdir / "depths.csv").read_text().splitlines()))
    rules = [row["rule"] for row in rows]
    assert rules.count("fixed") == 3 and set(rules) == {"fixed", "change", "gate"}
    assert float(rows[1]["auc"]) == written["fixed"][1]["auc"] and rows[1]["gain"] == ""


def test_the_figure_is_drawn_where_it_can_be(run, monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
    study = run[2]
    depths_report.write_depths(study, tmp_path)
    assert (tmp_path / "depths.png").exists()
    assert words(tmp_path / "depths.png") >= {"AUC", "mean loops per example"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "depths.png").unlink()
    depths_report.write_depths(study, tmp_path)
    assert "no figure is drawn, as matplotlib is not installed" in capsys.readouterr().err
    assert not (tmp_path / "depths.png").exists()


def test_one_loop_is_enough(tmp_path, capsys):
    train(_config("loops=1", "data.train_on=train+validation"), tmp_path / "run")
    study = study_depths(tmp_path / "run")
    assert [row["mean_depth"] for row in study.rules["change"]] == [1]  # it always takes the first loop
    assert len(study.rules["gate"]) > 5
    depths_report.print_depths(study, tmp_path)
    assert "was trained on the validation split too" in capsys.readouterr().out


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_test_split_without_an_auc_is_refused(label, run, monkeypatch):
    scores = Evaluation.scores

    def alike(*args, **kwargs):
        found = scores(*args, **kwargs)
        return dataclasses.replace(found, label=np.full_like(found.label, label))

    monkeypatch.setattr(Evaluation, "scores", alike)
    with pytest.raises(
        UserError, match=r"no depth of \S*run has an AUC: the test split of .* lacks clicks, or"
    ):
        study_depths(run[0])


def test_a_run_without_loops_is_refused(tmp_path):
    claim(tmp_path / "run", _config("loops=0"))
    with pytest.raises(UserError, match=r"run holds looped, which was trained with 0 loops, expected at lea"):
        study_depths(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]
