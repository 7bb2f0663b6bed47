"""Runs that train together get what each gets alone."""

import functools
import shutil

import jax
import numpy as np
import pytest

from suan_jax.batch import blank_batch
from suan_jax.config import Config
from suan_jax.errors import UserError
from suan_jax.training.loop import train, train_together
from suan_jax.training.run import Run
from suan_jax.training.setup import set_up
from suan_jax.training.step import train_step
from tests.training.runs import arrays, assert_same_bits, last_state, rows, tiny

KEPT = ("auc", "log_loss", "examples", "steps", "seed")


def _run(seed: int, rate: float, *overrides: str) -> Config:
    return tiny(f"train.seed={seed}", f"optimizer.learning_rate={rate}", "checkpoint.every=4", *overrides)


def test_numbers_of_a_run_are_those_it_has_alone(tmp_path):
    configs = [_run(0, 1e-3), _run(1, 1e-3), _run(0, 4e-3)]
    together = train_together({tmp_path / f"together_{i}": config for i, config in enumerate(configs)})
    for index, (config, (workdir, summary)) in enumerate(zip(configs, together.items(), strict=True)):
        alone = train(config, tmp_path / f"alone_{index}")
        assert summary["trained_together"] == 3 and alone["trained_together"] == 1
        for name in KEPT:
            assert summary[name] == pytest.approx(alone[name], abs=1e-5), name
        paths = workdir, tmp_path / f"alone_{index}"
        got, expected = (arrays(last_state(path, config)[0]) for path in paths)
        for name in expected:
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
        losses = [[row["loss"] for row in rows(path) if "loss" in row] for path in paths]
        np.testing.assert_allclose(*losses, rtol=1e-5)
    # Each has a shuffle of its own, so that their losses differ from the first step on.
    first = [rows(workdir)[0]["loss"] for workdir in together]
    assert len(set(first)) == 2


class _Killed(BaseException):
    pass


def _two(folder):
    """Work directories and configs of the two runs that are killed."""
    return {folder / str(seed): _run(seed, rate) for seed, rate in enumerate((1e-3, 2e-3))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Work directories of the two left alone, and their summaries."""
    return train_together(_two(tmp_path_factory.mktemp("whole")))


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of the two, killed at a step that both have saved."""
    folder = tmp_path_factory.mktemp("killed")
    pause = Run.pause

    def dies(self, step, state):
        pause(self, step, state)
        if step == 12 and self.setup.config.train.seed == 1:
            raise _Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "pause", dies)
        with pytest.raises(_Killed):
            train_together(_two(folder))
    return folder


@pytest.mark.parametrize("lost", [False, True], ids=["at_one_step", "at_different_steps"])
def test_go_on_where_they_were_killed(whole, killed, tmp_path, lost):
    folder = shutil.copytree(killed, tmp_path / "killed")
    if lost:
        shutil.rmtree(folder / "1" / "checkpoints" / "12")
    configs = _two(folder)
    got = train_together(configs)
    for (one, config), other in zip(configs.items(), whole, strict=True):
        assert got[one]["trained_together"] == (1 if lost else 2)
        assert got[one]["auc"] == pytest.approx(whole[other]["auc"], abs=1e-5)
        state, reference = (last_state(workdir, config)[0] for workdir in (one, other))
        if lost:
            for name, array in arrays(reference).items():
                np.testing.assert_allclose(arrays(state)[name], array, rtol=1e-4, atol=1e-5, err_msg=name)
        else:
            assert_same_bits(state, reference)


def test_one_that_diverges_does_not_stop_the_others(tmp_path):
    configs = {tmp_path / "sound": _run(0, 1e-3), tmp_path / "wild": _run(0, 1e30)}
    results = train_together(configs)
    assert isinstance(results[tmp_path / "wild"], UserError)
    assert results[tmp_path / "sound"]["auc"] is not None
    assert not (tmp_path / "wild" / "summary.json").exists()


def test_runs_that_differ_in_more_are_refused(tmp_path):
    with pytest.raises(ValueError, match="alone"):
        train_together({tmp_path / "a": _run(0, 1e-3), tmp_path / "b": _run(0, 1e-3, "train.batch_size=16")})
    assert not (tmp_path / "a").exists()


def test_another_number_of_steps_or_rate_needs_no_other_program():
    setups = [set_up(tiny("train.steps=10")), set_up(tiny("train.steps=20", "optimizer.learning_rate=0.1"))]
    texts = set()
    for setup in setups:
        batch = blank_batch(setup.log.schema, 4, setup.config.data.max_len)
        step = functools.partial(train_step, setup.model, setup.optimizer, setup.factor)
        texts.add(jax.jit(step).lower(setup.abstract, batch, setup.pace()).as_text())
    assert len(texts) == 1
