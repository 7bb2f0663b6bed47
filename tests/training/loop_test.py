import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.data.pipeline import train_iterator
from suan_jax.errors import Preempted, UserError
from suan_jax.training import loop, setup
from suan_jax.training.checkpoint import Checkpoints
from suan_jax.training.loop import train
from suan_jax.training.setup import set_up
from suan_jax.training.state import is_finite
from tests.data.random_log import random_log
from tests.training.runs import assert_same_bits, last_state, rows, tiny

# So high a learning rate that later steps are hardly better than earlier ones, and the best is not the last.
_OVERRIDES = (
    "train.eval_every=5",
    "checkpoint.every=10",
    "checkpoint.best=auc",
    "optimizer.learning_rate=0.3",
)


@pytest.fixture(scope="module")
def config():
    return tiny(*_OVERRIDES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, config):
    """A work directory of a finished run, and its summary."""
    workdir = tmp_path_factory.mktemp("loop") / "run"
    return workdir, train(config, workdir)


@pytest.fixture
def unfinished(tmp_path, finished):
    """A copy of it that still has to evaluate and sum up."""
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    (workdir / "summary.json").unlink()
    return workdir


def _evaluations(workdir):
    return {row["step"]: row for row in rows(workdir) if row.get("split") == "validation"}


def test_the_best_step_is_kept_and_evaluated_at_the_end(finished, config):
    workdir, summary = finished
    values = {step: row["auc"] for step, row in _evaluations(workdir).items()}
    assert list(values) == [5, 10, 15, 20]
    best = max(values, key=values.__getitem__)
    assert best < 15, "it would be among the newest anyway"
    assert sorted(int(path.name) for path in (workdir / "checkpoints").iterdir()) == [best, 15, 20]
    assert summary["evaluated_step"] == best
    assert summary["steps"] == 20
    last = rows(workdir)[-1]
    assert (last["step"], last["split"]) == (best, "test")
    assert last["auc"] == summary["auc"]


def test_a_run_stopped_in_an_evaluation_evaluates_again_and_still_knows_its_best(
    tmp_path, monkeypatch, finished, config
):
    workdir = tmp_path / "run"
    metrics = loop.Evaluation.metrics

    def stopped(self, state, split, watch):
        if int(state.step) == 15:
            os.kill(os.getpid(), signal.SIGTERM)
        return metrics(self, state, split, watch)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Evaluation, "metrics", stopped)
        with pytest.raises(Preempted, match=rf"at step 15 of 20 and saved in {workdir}: repeat the same"):
            train(config, workdir)
    assert list(_evaluations(workdir)) == [5, 10]
    summary = train(config, workdir)
    assert rows(workdir) == rows(finished[0])
    assert summary["evaluated_step"] == finished[1]["evaluated_step"]
    assert summary["auc"] == finished[1]["auc"]
    expected = last_state(finished[0], config)[0]
    assert_same_bits(last_state(workdir, config)[0], expected)


def test_a_finished_run_returns_its_summary_at_once(finished, config, monkeypatch):
    workdir, summary = finished
    monkeypatch.setattr(loop, "set_up", None)
    assert train(config, workdir) == summary == json.loads((workdir / "summary.json").read_text())


def test_another_config_is_refused(finished):
    other = tiny(*_OVERRIDES, "train.batch_size=128", "mesh.model=-1", "mesh.data=1")
    with pytest.raises(
        UserError, match=r"holds a run of another config \(train.batch_size: 64 != 128\): give"
    ):
        train(other, finished[0])


def test_a_damaged_newest_checkpoint_costs_some_steps_and_changes_nothing(
    unfinished, finished, config, capfd
):
    shutil.rmtree(unfinished / "checkpoints" / "20" / "state")
    summary = train(config, unfinished)
    said = [
        line
        for line in capfd.readouterr().err.splitlines()
        if line.startswith(("the check", str(unfinished)))
    ]
    assert len(said) == 2
    assert said[0].startswith(f"the checkpoint {unfinished}/checkpoints/20 is damaged (state/")
    assert said[1] == f"{unfinished} goes on at step 15 of 20"
    assert summary["auc"] == finished[1]["auc"]
    assert len(rows(unfinished)) == len(rows(finished[0]))
    assert all(row in rows(unfinished) for row in rows(finished[0]))
    assert_same_bits(last_state(unfinished, config)[0], last_state(finished[0], config)[0])


def test_a_run_all_of_whose_checkpoints_are_damaged_starts_anew(unfinished, finished, config, capfd):
    for folder in (unfinished / "checkpoints").iterdir():
        (folder / "checksums.json").unlink()
    train(config, unfinished)
    assert f"{unfinished} starts anew, as none of its checkpoints is sound\n" in capfd.readouterr().err
    assert rows(unfinished) == rows(finished[0])
    assert_same_bits(last_state(unfinished, config)[0], last_state(finished[0], config)[0])


def test_a_mistake_claims_no_work_directory(tmp_path):
    with pytest.raises(UserError, match="no store at /nowhere"):
        train(tiny(arguments="store=/nowhere"), tmp_path / "run")
    with pytest.raises(UserError, match=r"config.train.steps is -1"):
        bad = tiny()
        bad.train.steps = -1
        train(bad, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"config.init_from: /nowhere is not a work directory"):
        train(tiny("init_from=/nowhere"), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_loss_that_is_not_finite_ends_the_run_at_the_batch_that_made_it(tmp_path, monkeypatch):
    log = random_log(0, blocks=30)
    size, step = 4, 17
    config = tiny(f"train.batch_size={size}", "train.steps=30", "checkpoint.every=5")
    monkeypatch.setattr(setup, "open_log", lambda data: log)
    batches = train_iterator(log, config.data, size, config.train.seed)
    seen = [next(batches).dense for _ in range(step)]
    earlier = {float(value) for dense in seen[:-1] for value in dense[:, 0, 0]}
    poison = next(float(value) for value in seen[-1][:, 0, 0] if float(value) not in earlier)
    for block in log.blocks:
        block.dense[np.float32(poison) == block.dense] = np.nan
    epoch, offset = divmod((step - 1) * size, set_up(config).train_examples)
    with pytest.raises(UserError) as error:
        train(config, tmp_path / "run")
    assert str(error.value).startswith(
        f"the loss is nan at step {step}, on the batch that starts at example {offset} of epoch {epoch} "
        "(seed 0): "
    )
    assert str(error.value).endswith("the last checkpoint is of step 15")
    assert [row["step"] for row in rows(tmp_path / "run")] == list(range(1, step))
    state, _ = last_state(tmp_path / "run", config)
    assert int(state.step) == 15
    assert bool(is_finite(state))


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("field", ["learning_rate", "embedding_learning_rate"])
def test_a_state_that_is_not_finite_is_not_saved(tmp_path, field):
    config = tiny(f"optimizer.{field}=1e39", "train.steps=3", "checkpoint.every=1")  # beyond float32
    with pytest.raises(UserError, match=r"at step 1, .*lower config.optimizer.*the last checkpoint is none"):
        train(config, tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", read_only=True)
    assert checkpoints.steps() == []


@pytest.mark.smoke
def test_is_finite_looks_at_every_number(config):
    state = set_up(tiny()).abstract
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state.replace(key=jax.random.key(0)))
    assert bool(is_finite(state))
    for bad in (jnp.nan, jnp.inf):
        table = state.tables["item"].at[5, 1].set(bad)
        assert not bool(is_finite(state.replace(tables={**state.tables, "item": table})))
