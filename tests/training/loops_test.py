"""A run of a looped model: what training logs, and evaluation at any depth of one checkpoint."""

import dataclasses
import pathlib
import re

import jax
import numpy as np
import polars as pl
import pytest

from suan_jax import config_file
from suan_jax.errors import UserError
from suan_jax.evaluation import metrics
from suan_jax.files import read_json
from suan_jax.training.evaluate_run import evaluate_run
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.loop import train
from suan_jax.training.report import print_summary
from suan_jax.training.restore import restore_run
from suan_jax.training.setup import set_up
from suan_jax.training.summary import flops_by_loops
from tests.training.runs import Job, last_state, rows, tiny

pytestmark = pytest.mark.usefixtures("own_models")
LOOPED = pathlib.Path(__file__).with_name("looped_config.py")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two loops, its headline at one, and its summary."""
    workdir = tmp_path_factory.mktemp("looped") / "run"
    config = config_file.load_config(
        [f"--config={LOOPED}", "--config.train.steps=6", "--config.train.save_scores=True"]
    )
    return workdir, train(config, workdir)


@pytest.fixture(scope="module")
def restored(run):
    setup, state = restore_run(run[0])
    return setup, state, Evaluation(setup).scores(state, "test", depths=True)


def test_each_depth_is_logged_and_the_loss_is_their_weighted_mean(run):
    row = rows(run[0])[0]
    losses = [row[f"log_loss_depth_{depth}"] for depth in range(3)]
    assert len(set(losses)) == 3
    assert row["log_loss"] == pytest.approx(np.dot([1 / 6, 2 / 6, 3 / 6], losses), rel=1e-5)
    assert row["loss"] == row["log_loss"]
    assert row["state_norm"] > 0


def test_the_summary_has_every_depth_and_the_headline_is_one_of_them(run):
    workdir, summary = run
    assert summary["inferred_loops"] == 1 and summary["loops_trained"] == 2
    assert summary["auc"] == summary["auc_by_loops"][1]
    assert len(set(summary["auc_by_loops"])) == 3
    assert summary["flops_per_example"] == summary["flops_by_loops"][1]
    assert np.diff(summary["flops_by_loops"]) == pytest.approx([72, 72])
    per_example = summary["train_flops"] / summary["examples"]
    assert per_example > 3 * summary["flops_by_loops"][2]  # an exit at every depth
    final = [row for row in rows(workdir) if row.get("split") == "test"]
    assert [row["auc_by_loops"] for row in final] == [summary["auc_by_loops"]]
    assert summary["params"]["recurrent"] > 0


def test_the_summary_is_printed_with_every_depth(run, capsys):
    workdir, summary = run
    print_summary(summary, workdir)
    printed = capsys.readouterr().out
    for loops, auc in enumerate(summary["auc_by_loops"]):
        assert re.search(rf"at {loops} loops +{auc:.6g}", printed)


def test_depths_of_one_pass_are_those_of_one_at_a_time(run, restored):
    workdir, summary = run
    setup, state, scores = restored
    np.testing.assert_array_equal(scores.logit, scores.depths[1])
    for depth in range(3):
        alone = Evaluation(setup, loops=depth)
        logit = alone.scores(state, "test").logit
        np.testing.assert_allclose(scores.depths[depth], logit, rtol=1e-5, atol=1e-6)
        assert metrics.auc(scores.label, logit) == pytest.approx(summary["auc_by_loops"][depth], abs=1e-4)
        again = alone.scores(state, "test", depths=True)  # the headline is the one that was asked for
        np.testing.assert_array_equal(again.logit, scores.depths[depth])
    table = np.load(workdir / "scores.npy")
    np.testing.assert_array_equal(table["depths"], scores.depths.T)
    np.testing.assert_array_equal(table["logit"], scores.logit)


def test_a_split_too_large_to_keep_has_its_depths_too(restored, monkeypatch):
    setup, state, scores = restored
    monkeypatch.setattr("suan_jax.evaluation.evaluator.evaluate.__defaults__", (0, 0))
    result = Evaluation(setup).metrics(state, "test", depths=True)
    assert "gauc" not in result  # it is a histogram's
    assert result["auc_by_loops"] == pytest.approx(scores.metrics()["auc_by_loops"], abs=1e-4)


def test_depths_are_put_right_for_down_sampling(restored):
    setup, state, scores = restored
    data = dataclasses.replace(setup.config.data, negative_rate=0.25)
    setup = dataclasses.replace(setup, config=dataclasses.replace(setup.config, data=data))
    got = Evaluation(setup).scores(state, "test", depths=True)
    np.testing.assert_allclose(got.depths, scores.depths + np.log(0.25), rtol=1e-5, atol=1e-5)


def test_at_no_loops_the_loop_is_not_read(restored):
    setup, state, scores = restored
    params = dict(state.params)
    params["loop"] = jax.tree.map(lambda leaf: leaf * np.nan, params["loop"])
    poisoned = Evaluation(setup, loops=0).scores(state.replace(params=params), "test")
    np.testing.assert_allclose(poisoned.logit, scores.depths[0], rtol=1e-5, atol=1e-6)


def test_the_job_evaluates_the_depth_that_it_is_asked_for(run, tmp_path):
    workdir, summary = run
    assert evaluate_run(workdir, "test")["auc"] == pytest.approx(summary["auc"], abs=1e-4)
    given = [f"--workdir={workdir}", f"--config={LOOPED}", "--loops=2"]
    job = Job(*given, f"--predictions={tmp_path / 'p.parquet'}", launch="evaluate")
    done = job.end()
    assert done.returncode == 0, done.stderr
    frame = pl.read_parquet(tmp_path / "p.parquet")
    expected = np.load(workdir / "scores.npy")["depths"][:, 2]
    np.testing.assert_allclose(frame["logit"], expected, rtol=1e-5, atol=1e-6)
    printed = dict(line.split() for line in done.stdout.splitlines()[2:])
    assert float(printed["auc"]) == pytest.approx(summary["auc_by_loops"][2], abs=1e-4)


@pytest.mark.parametrize("loops", [-1, 3])
def test_loops_that_were_not_trained_are_refused(run, loops):
    with pytest.raises(UserError, match=rf"loops is {loops}, expected 0 to 2, the loops it was trained with"):
        evaluate_run(run[0], "test", loops=loops)


def test_loops_of_a_model_without_any_are_refused():
    with pytest.raises(UserError, match="loops is 0, expected none, as din has no loops"):
        Evaluation(set_up(tiny()), loops=0)


def test_a_looped_model_resumes_like_any_other(run, tmp_path):
    workdir, summary = run
    config = config_file.load_config(
        [f"--config={LOOPED}", "--config.train.steps=6", "--config.train.save_scores=True"]
    )
    assert last_state(workdir, config)[0].step == 6
    (workdir / "summary.json").rename(tmp_path / "summary.json")
    again = train(config, workdir)
    assert again["auc_by_loops"] == read_json(tmp_path / "summary.json")["auc_by_loops"]
    assert flops_by_loops(config.model, restore_run(workdir)[0].log.schema, 8) == summary["flops_by_loops"]
