import json
import math
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.errors import UserError
from suan_jax.training.metric_writer import MetricWriter, read_metrics


def _rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def _no_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)


@pytest.mark.smoke
def test_rows_are_json_at_once_with_null_for_what_is_not_finite(tmp_path):
    writer = MetricWriter(tmp_path)
    values = {"loss": jnp.float32(0.5), "auc": math.nan, "norm": np.float32("inf"), "n": np.int32(3)}
    writer.write(np.int64(20), split="test", **values, auc_by_loops=[0.5, math.nan])
    # Read before close: a kill loses nothing that was written.
    expected = {"step": 20, "loss": 0.5, "auc": None, "norm": None, "split": "test", "n": 3}
    expected["auc_by_loops"] = [0.5, None]
    assert _rows(tmp_path) == [expected]
    writer.close()


def test_a_resumed_run_has_each_step_once(tmp_path):
    writer = MetricWriter(tmp_path)
    for step in (10, 20, 30):
        writer.write(step, loss=1.0 / step)
    writer.write(20, split="test", auc=0.7)
    writer.close()
    resumed = MetricWriter(tmp_path, resume_step=20)
    assert [row["step"] for row in _rows(tmp_path)] == [10, 20, 20]
    resumed.write(30, loss=2.0)
    resumed.close()
    rows = _rows(tmp_path)
    assert [(row["step"], row.get("split")) for row in rows] == [
        (10, None),
        (20, None),
        (20, "test"),
        (30, None),
    ]
    assert rows[-1]["loss"] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_row_that_stands_is_not_written_again(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(10, split="test", auc=0.7)
    writer.close()
    resumed = MetricWriter(tmp_path, resume_step=10)
    resumed.write(10, split="test", auc=0.7)
    resumed.write(10, split="validation", auc=0.6)
    resumed.write(10, loss=0.3)
    resumed.close()
    assert [row.get("split") for row in _rows(tmp_path)] == ["test", "validation", None]


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for torn in ('{"step": 20, "lo', '{"step": 20}'):
        path.write_text('{"step": 10, "loss": 1.0}\n' + torn)
        MetricWriter(tmp_path, resume_step=20).close()
        assert _rows(tmp_path) == [{"step": 10, "loss": 1.0}]


def test_a_fresh_run_starts_a_fresh_file(tmp_path):
    for value in (1.0, 2.0):
        writer = MetricWriter(tmp_path)
        writer.write(0, loss=value)
        writer.close()
    assert _rows(tmp_path) == [{"step": 0, "loss": 2.0}]


@pytest.mark.parametrize("line", ["not json", "[1]", '{"loss": 1.0}', '{"step": "x"}', "\xff"])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    content = '{"step": 1}\n' + line + "\n"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"metrics\.jsonl line 2 is"):
        MetricWriter(tmp_path, resume_step=5)
    assert path.read_bytes() == content.encode("latin-1")


def test_a_full_disk_is_named(tmp_path):
    writer = MetricWriter(tmp_path)
    writer._file = open("/dev/full", "a")  # the first write to it fails as on a full disk
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        writer.write(1, loss=1.0)


def test_tensorboard_gets_the_numbers_if_it_is_there(tmp_path, monkeypatch):
    calls = []

    class SummaryWriter:
        def __init__(self, directory, purge_step):
            calls.append((directory, purge_step))

        def add_scalar(self, *args):
            calls.append(args)

        def close(self):
            calls.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    writer = MetricWriter(tmp_path, resume_step=4)
    writer.write(5, loss=0.5, norm=math.nan)
    writer.write(5, split="test", auc=0.7)
    writer.close()
    assert calls == [
        (str(tmp_path / "tensorboard"), 5),
        ("train/loss", 0.5, 5),
        ("test/auc", 0.7, 5),
        "closed",
    ]


def test_read_metrics_leaves_the_cut_line_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
