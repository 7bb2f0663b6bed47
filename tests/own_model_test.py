"""A model that lives in its user's config file: the one that README.md shows."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest

from suan_jax import config_file
from suan_jax.errors import UserError
from suan_jax.models import ModelDefinition, build, model, register
from suan_jax.training.evaluate_run import evaluate_run
from suan_jax.training.loop import train
from tests.random_batch import garble_pads, random_batch, random_schema
from tests.readme import ROOT, block

_SMALL = (
    "--config.data.max_len=8 --config.data.synthetic.users=300 --config.data.synthetic.events=20 "
    "--config.model.head=(8,) --config.train.batch_size=32 --config.train.steps=6 --config.checkpoint.every=3"
).split()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The config file, outside the package; what it registers is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(model, "_REGISTRY", dict(model._REGISTRY))
    path = tmp_path / "mine" / "mean_pool.py"
    path.parent.mkdir()
    path.write_text(block("python", "class MeanPool"))
    return path


def _train(path, workdir):
    return train(config_file.load_config([f"--config={path}", *_SMALL]), workdir)


def test_its_command_trains_from_anywhere(own, tmp_path):
    command = [sys.executable, str(ROOT / "launch" / "train.py"), f"--config={own}", *_SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mean_pool" in done.stdout and "best possible" in done.stdout
    assert (tmp_path / "runs" / "mean_pool" / "summary.json").exists()


def test_it_resumes_and_is_evaluated_once_it_is_defined(own, tmp_path):
    workdir = tmp_path / "run"
    first = _train(own, workdir)
    (workdir / "summary.json").unlink()  # as if it had been killed in its last evaluation
    again = _train(own, workdir)
    assert again["auc"] == first["auc"] and again["steps"] == 6

    del model._REGISTRY["mean_pool"]  # as a fresh process knows it
    with pytest.raises(UserError, match=r"config\.model\.name is 'mean_pool'.*--config=FILE"):
        evaluate_run(workdir, "test")
    config_file.load_definitions(str(own))
    assert evaluate_run(workdir, "test")["auc"] == first["auc"]


def test_a_config_imports_a_model_from_the_file_beside_it(own, tmp_path):
    beside = own.with_name("study.py")
    beside.write_text("from mean_pool import get_config\n")
    config = config_file.load_config([f"--config={beside}", "--config.model.head=(5,)"])
    assert (config.model.name, config.model.head) == ("mean_pool", (5,))


def test_its_pads_do_not_matter(own):
    schema = random_schema()
    config = config_file.load_config([f"--config={own}", "--config.model.head=(8,)"])
    config.optimizer.embedding_init = 1.0
    built, batch = build(config, schema), random_batch(0, schema)
    variables = jax.jit(built.init)(jax.random.key(0), batch)
    apply = jax.jit(built.apply)
    logits = apply(variables, batch).logits
    np.testing.assert_allclose(apply(variables, garble_pads(batch, schema)).logits, logits, rtol=1e-6)
    other = batch.replace(history={**batch.history, "item": batch.history["item"][::-1]})
    assert np.abs(apply(variables, other).logits - logits).max() > 1e-3


def test_the_name_of_a_model_of_the_package_is_taken():
    with pytest.raises(UserError, match=r"Mine is named 'din', as a model of suan_jax.models.din is"):

        @register
        @dataclasses.dataclass
        class Mine(ModelDefinition):
            name: str = "din"
