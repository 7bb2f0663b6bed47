"""Runs on packed rows: what they count, that they resume, and which they refuse."""

import itertools
import math
import shutil
import types

import pytest

from suan_jax.data import train_iterator
from suan_jax.errors import UserError
from suan_jax.training.loop import train
from suan_jax.training.setup import set_up
from suan_jax.training.sharding import check_batch_size
from tests.training.runs import assert_same_bits, last_state, rows, tiny

_PACKED = (
    "data.packing=time",
    "data.candidates=4",
    "train.batch_size=64",
    "train.steps=0",
    "train.epochs=0.2",
)
_CAUSAL = ("model.pool=causal", "model.absolute_position=False")


@pytest.fixture(scope="module")
def config():
    return tiny(*_PACKED, *_CAUSAL, arguments="model=suan")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, config):
    workdir = tmp_path_factory.mktemp("packed") / "run"
    return workdir, train(config, workdir)


def test_what_a_run_counts_are_examples_and_not_slots(finished, config):
    workdir, summary = finished
    setup = set_up(config)
    assert setup.train_rows < setup.train_examples
    assert summary["steps"] == math.ceil(0.2 * setup.train_rows / 16)
    batches = train_iterator(setup.log, config.data, 64, config.train.seed)
    counts = [int(batch.candidate_mask.sum()) for batch in itertools.islice(batches, summary["steps"])]
    assert max(counts) < 64
    assert summary["examples"] == sum(counts)
    assert summary["candidates_per_row"] == sum(counts) / (16 * summary["steps"])
    assert [row["examples"] for row in rows(workdir) if "split" not in row] == counts
    row_flops = config.model.training_flops_per_row(setup.log.schema, config.data.max_len, 4)
    assert summary["train_flops"] == row_flops * 16 * summary["steps"]
    assert row_flops < 4 * config.model.training_flops_per_example(setup.log.schema, config.data.max_len)


def test_a_packed_run_resumes_to_the_last_bit(finished, config, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    (workdir / "summary.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / str(finished[1]["steps"]) / "state")
    summary = train(config, workdir)
    assert_same_bits(last_state(workdir, config)[0], last_state(finished[0], config)[0])
    assert rows(workdir) == rows(finished[0])
    assert summary["examples"] == finished[1]["examples"]


def test_evaluation_is_that_of_each_example_alone(finished, config):
    test = finished[1]["evaluated_examples"]
    assert test == set_up(config).log.counts("test").sum()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ((), r"config\.data\.packing is 'time', .* config\.model\.pool is 'history', whose history states"),
        (("model.pool=causal",), r"config\.data\.packing is 'time', .* config\.model\.absolute_position is"),
        (
            (*_CAUSAL, "train.batch_size=66"),
            r"config\.train\.batch_size is 66, expected a multiple of config",
        ),
        ((*_CAUSAL, "data.candidates=1"), r"config\.data\.candidates is 1, expected at least 2"),
        (("data.packing=none",), r"config\.data\.candidates is 4, expected 1"),
        (("data.packing=user",), r"config\.data\.packing is 'user', expected one of"),
    ],
)
def test_what_cannot_be_packed_is_refused_before_it_claims_its_folder(overrides, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence) as error:
        train(tiny(*_PACKED, *overrides, arguments="model=suan"), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_rows_must_divide_over_the_devices(config):
    mesh = types.SimpleNamespace(shape={"data": 3})
    with pytest.raises(
        UserError, match=r"batch_size is 64, .* of the 3 devices .*config\.data\.candidates, 4"
    ):
        check_batch_size(mesh, config.train, "batch_size", 4)
