import dataclasses
import json
import shutil

import jax
import numpy as np
import polars as pl
import pytest

from suan_jax.config_dict import to_dict
from suan_jax.data.store import open_store
from suan_jax.data.store_writer import StoreWriter
from suan_jax.errors import UserError
from suan_jax.evaluation.evaluator import Scores
from suan_jax.files import write_json
from suan_jax.training.checkpoint import Checkpoints
from suan_jax.training.evaluate_run import evaluate_run, write_predictions
from suan_jax.training.evaluation import Evaluation
from suan_jax.training.restore import restore_run
from suan_jax.training.setup import set_up
from tests.data.random_log import random_log
from tests.training.runs import assert_same_bits, tiny

_SCORES = Scores(
    user=np.array([3, 0, 3]),
    label=np.array([1.0, 0.0, 0.0], np.float32),
    logit=np.array([0.5, -1.5, 2.0], np.float32),
    truth={},
)


def _store(path, users=None, seed=0):
    log = random_log(seed, blocks=6)
    with StoreWriter(path, log.schema, source="random", users=users) as writer:
        for block in log.blocks:
            writer.write(block)
    return open_store(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A work directory with checkpoints of steps 1 and 2, of which the first was the better, as if trained
    on eight devices.
    """
    folder = tmp_path_factory.mktemp("evaluate")
    _store(folder / "store")
    overrides = ("train.eval_every=1", "train.eval_batch_size=16", "checkpoint.best=auc", "mesh.data=4")
    config = tiny(*overrides, "mesh.model=2", arguments=f"store={folder / 'store'}")
    (folder / "run").mkdir()
    write_json(folder / "run" / "config.json", to_dict(config))
    setup = set_up(tiny(*overrides, "mesh.data=1", arguments=f"store={folder / 'store'}"))
    state = setup.fresh_state()
    checkpoints = Checkpoints(folder / "run" / "checkpoints", keep=2)
    rows = []
    for step, auc in ((1, 0.8), (2, 0.6)):
        iterator = {"log": setup.log.fingerprint}
        checkpoints.save(state.replace(step=jax.numpy.int32(step)), iterator, {}, to_dict(config))
        rows.append(json.dumps({"step": step, "split": "validation", "auc": auc}) + "\n")
    checkpoints.close()
    (folder / "run" / "metrics.jsonl").write_text("".join(rows))
    return folder / "run", setup, state


def test_the_best_checkpoint_is_restored_on_the_devices_there_are(run):
    workdir, _, state = run
    got_setup, got = restore_run(workdir)
    assert int(got.step) == 1
    assert_same_bits(got.replace(step=state.step), state)
    assert dict(got_setup.mesh.shape) == {"data": 1, "model": 1}
    before = sorted(workdir.rglob("*"))
    restore_run(workdir)
    assert sorted(workdir.rglob("*")) == before


def test_metrics_and_predictions_are_of_the_same_scores(run, tmp_path):
    workdir, setup, state = run
    expected = Evaluation(setup).scores(state, "validation")
    result = evaluate_run(workdir, "validation", tmp_path / "p.parquet")
    assert result == pytest.approx(expected.metrics(), nan_ok=True)
    frame = pl.read_parquet(tmp_path / "p.parquet")
    assert frame.columns == ["user", "label", "logit"]
    np.testing.assert_array_equal(frame["user"], expected.user)  # indices, as the store has no raw ids
    np.testing.assert_array_equal(frame["label"], expected.label)
    np.testing.assert_array_equal(frame["logit"], expected.logit)
    assert evaluate_run(workdir, "validation") == pytest.approx(result, nan_ok=True)


def test_predictions_are_called_what_they_are(tmp_path):
    with pytest.raises(UserError, match=r"p\.csv, expected a name that ends in \.parquet"):
        evaluate_run(tmp_path, "test", tmp_path / "p.csv")


def test_users_are_raw_ids_where_the_store_has_them(tmp_path):
    users = pl.DataFrame({"index": [3, 0, 1], "raw": ["c", "a", "b"]})  # in no order
    write_predictions(tmp_path / "p.parquet", _SCORES, _store(tmp_path / "store", users))
    frame = pl.read_parquet(tmp_path / "p.parquet")
    assert frame.to_dict(as_series=False) == {
        "user": ["c", "a", "c"],
        "label": [1, 0, 0],
        "logit": [0.5, -1.5, 2.0],
    }


def test_predictions_that_cannot_be_written_are_one_sentence_and_no_file(run, tmp_path):
    with pytest.raises(UserError, match=r"cannot write the predictions to .*/nowhere/p.parquet"):
        evaluate_run(run[0], "test", tmp_path / "nowhere" / "p.parquet")
    (tmp_path / "p.parquet").mkdir()
    with pytest.raises(UserError, match=r"cannot write the predictions to .*/p.parquet: Is a directory"):
        write_predictions(tmp_path / "p.parquet", _SCORES, random_log(0))
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


def test_a_store_that_was_prepared_again_is_refused(run, tmp_path):
    workdir, setup, _ = run
    store = tmp_path / "store"
    _store(store, seed=1)
    shutil.copytree(workdir, tmp_path / "run")
    config = dataclasses.replace(setup.config, data=dataclasses.replace(setup.config.data, store=str(store)))
    write_json(tmp_path / "run" / "config.json", to_dict(config))
    with pytest.raises(
        UserError, match=rf"{store} is not what {tmp_path / 'run'} was trained on, it was prep"
    ):
        restore_run(tmp_path / "run")


def test_a_directory_without_a_checkpoint_says_so(run, tmp_path):
    write_json(tmp_path / "config.json", json.loads((run[0] / "config.json").read_text()))
    with pytest.raises(UserError, match=rf"{tmp_path} holds no sound checkpoint: train it first"):
        restore_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
