import json
import math
import sys

import jax
import numpy as np
import pytest

from suan_jax.benchmark import attention, fuxictr, loops, run, serving, step, tables
from suan_jax.benchmark import input as input_suite
from suan_jax.config import SyntheticConfig
from suan_jax.errors import UserError

TIMES = ("ms", "ms_low", "ms_high")


def positive(row, *names):
    return all(isinstance(row[name], (int, float)) and row[name] > 0 for name in names)


def test_step_rows_hold_what_they_promise():
    size = step.Size(width=8, layers=1, heads=2, max_len=3, batch_size=4, head=(4,), items=1024)
    rows = list(step.measure(size, repeats=2))
    assert [row["name"] for row in rows] == ["suan", "suan without time bias", "din"]
    assert [row["time_bias"] for row in rows] == [True, False, False]
    for row in rows:
        assert positive(row, *TIMES, "examples_per_second", "tokens_per_second", "flops_per_second")
        assert row["tokens_per_second"] == pytest.approx(4 * row["examples_per_second"])
        assert row["examples_per_second"] == pytest.approx(4 / row["ms"] * 1e3)
        assert row["dtype"] == "float32" and row["peak_share"] is None
    assert positive(rows[0], "ratio_to_no_time_bias")


def test_packed_step_rows_are_of_as_many_examples():
    size = step.Size(8, 1, 2, max_len=3, batch_size=4, head=(4,), items=1024, candidates=2)
    packed, alone = step.measure(size, repeats=2)
    assert [(row["name"], row["candidates"]) for row in (packed, alone)] == [
        ("suan packed", 2),
        ("suan causal", 1),
    ]
    assert packed["examples_per_second"] == pytest.approx(4 / packed["ms"] * 1e3)
    assert packed["tokens_per_second"] == pytest.approx(2 * 5 / packed["ms"] * 1e3)
    assert alone["tokens_per_second"] == pytest.approx(4 * 4 / alone["ms"] * 1e3)
    assert positive(packed, "ratio_to_unpacked", "flops_per_second")


def test_loops_rows_hold_what_they_promise():
    size = loops.Size(max_len=3, batch_size=4, width=8, head=(4,), items=1024)
    rows = list(loops.measure(size, loops=(0, 2), repeats=2))
    names = [("loopctr", 0), ("loopctr", 2), ("loopctr, remat", 2), ("stackctr", 2)]
    assert [(row["name"], row["loops"]) for row in rows] == names
    for row in rows:
        assert positive(row, *TIMES, "compile_seconds", "temporary_bytes", "ratio_to_no_loops")
        assert row["width"] == 8
    assert rows[0]["ms_per_loop"] is None and rows[0]["ratio_to_no_loops"] == 1.0
    assert rows[1]["ms_per_loop"] == pytest.approx((rows[1]["ms"] - rows[0]["ms"]) / 2)


def test_serving_rows_hold_what_they_promise(monkeypatch):
    monkeypatch.setattr(serving, "_DILATIONS", (2,))
    size = serving.Size(max_len=20, candidates=3, width=8, layers=1, head=(4,), items=1024)
    *models, host = serving.measure(size, repeats=2)
    assert [(row["name"], row["dilation"]) for row in models] == [("suan", None), ("light_suan, r = 2", 2)]
    for row in models:
        assert positive(row, *TIMES, "encode_ms", "packed_ms", "one_by_one_ms", "ratio_to_one_by_one")
        assert row["kept_bytes"] >= 2 * 4 * 20 * 8  # keys and values of a layer
    assert positive(host, *TIMES)


@pytest.mark.smoke
def test_tables_rows_hold_what_they_promise():
    size = tables.Size(rows=(1024, 4096), width=4, ids=256)
    rows = list(tables.measure(size, repeats=2))
    assert [(row["name"], row["rows"]) for row in rows] == [
        (name, count) for name in ("touched rows", "dense adam") for count in (1024, 4096)
    ]
    for row in rows:
        assert positive(row, *TIMES, "ratio_to_smallest")
        assert 1 < row["distinct_ids"] < row["ids"] == 256
    assert rows[0]["ratio_to_smallest"] == rows[2]["ratio_to_smallest"] == 1.0
    assert positive(rows[0], "bytes_per_second") and rows[0]["bandwidth_share"] is None


def test_a_table_that_does_not_fit_is_a_row_with_the_reason():
    size = tables.Size(rows=(1024, 4096), width=4, ids=256)
    # Room for both tables as they are, and for Adam's copies of the smaller one.
    rows = list(tables.measure(size, repeats=1, memory=4 * 5 * (1024 + 4096) + 4 * 5 * 5 * 1024))
    skipped = [row for row in rows if "skipped" in row]
    assert [(row["name"], row["rows"]) for row in skipped] == [("dense adam", 4096)]
    assert "GiB" in skipped[0]["skipped"] and len(rows) == 4


def test_input_rows_hold_what_they_promise():
    synthetic = SyntheticConfig(users=20, events=10, impressions=8, items=1024)
    rows = list(input_suite.measure(synthetic, max_len=5, batch_size=16))
    assert [(row["name"], row["threads"]) for row in rows] == [
        (name, threads) for name in ("synthetic log", "store", "store, packed") for threads in (0, 1)
    ]
    for row in rows:
        assert positive(row, "examples", "examples_per_cpu_second", "examples_per_second")
        if row["candidates"] == 1:
            assert row["examples"] % 16 == 0 and row["candidates_per_row"] == 1
        else:
            assert 1 < row["candidates_per_row"] <= row["candidates"] == 8
        assert bool(row["shares"]) == (row["threads"] == 0)
        assert math.fsum(entry["share"] for entry in row["shares"]) <= 1.001


@pytest.mark.parametrize(("name", "small", "large"), [("step", 2, 4), ("tables", 1, 5), ("input", 1, 0)])
def test_sizes_of_a_gpu_are_rows_with_a_reason_on_a_cpu(name, small, large, monkeypatch):
    monkeypatch.setattr(run.SUITES[name], "measure", lambda *_: iter([{"name": "measured"}]))
    rows = list(run.SUITES[name].rows())
    assert all(("skipped" in row) == (row["name"] != "measured") for row in rows)
    assert len(rows) == small + large


def test_fuxictr_rows_hold_what_they_promise():
    pytest.importorskip("suan_jax.benchmark.fuxictr_models", reason="needs the extra `parity`")
    size = fuxictr.Size(items=1024, max_len=3, batch_size=4, embedding_width=8, head=(4,))
    rows = list(fuxictr.measure(size, repeats=2))
    assert [(row["name"], row["setting"]) for row in rows] == [
        (name, setting) for name in ("din", "bst") for setting in ("same optimizer", "as shipped")
    ]
    for row in rows:
        assert positive(row, *TIMES, *(f"fuxictr_{name}" for name in TIMES), "speed_ratio")
        assert row["examples_per_second"] == pytest.approx(4 / row["ms"] * 1e3)
        assert row["fuxictr_examples_per_second"] == pytest.approx(4 / row["fuxictr_ms"] * 1e3)
        assert row["table_rows"] == 1024 + 11_000


@pytest.mark.smoke
def test_without_fuxictr_there_is_a_row_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "suan_jax.benchmark.fuxictr_models", raising=False)
    monkeypatch.delattr("suan_jax.benchmark.fuxictr_models", raising=False)
    [row] = fuxictr.rows()
    assert row["skipped"] == "torch is not installed; pip install -e '.[parity]' brings it"


def test_the_job_writes_json_and_prints_the_table(tmp_path, monkeypatch, capsys):
    row = {"name": "touched rows", "rows": 8, "ms": 1.23456, "ratio_to_smallest": math.nan}
    monkeypatch.setattr(tables, "rows", lambda: iter([row, {"name": "big", "skipped": "too big"}]))
    run.run(["tables"], tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["suite"] == ["tables"] and written["jax_version"] == jax.__version__
    assert {"device", "device_count", "date"} <= written.keys()
    assert written["rows"][0] == {"suite": "tables", **row, "ratio_to_smallest": None}
    assert written["rows"][1]["skipped"] == "too big"
    printed = capsys.readouterr().out
    assert "1.235" in printed and "too big" in printed
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]


def test_what_was_measured_before_a_suite_that_ends_the_job_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "rows", lambda: iter([{"name": "a", "ms": 1.0}]))
    monkeypatch.setattr(step, "rows", lambda: iter([{"name": "b", "ms": 1 / 0}]))
    with pytest.raises(ZeroDivisionError):
        run.run(["tables", "step"], tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["suite"] == ["tables"] and [row["name"] for row in written["rows"]] == ["a"]


@pytest.mark.parametrize(
    ("names", "place", "message"),
    [
        (["stp"], "out.json", "--suite names 'stp', expected some of step, "),
        ([], "out.json", "--suite is empty"),
        (["tables"], "absent/out.json", "--out="),
        (["tables"], ".", "--out="),
    ],
)
def test_mistakes_are_told_before_anything_runs(names, place, message, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "rows", lambda: pytest.fail("it ran"))
    with pytest.raises(UserError, match=message):
        run.run(names, tmp_path / place)


def test_attention_rows_hold_what_they_promise():
    size = attention.Size(batch_size=2, tokens=8, heads=1, head_dim=16, window=2, dilation=2)
    names = ("kernel, softmax", "kernel, silu", "kernel, local and dilated")
    # The same draw every time: in one of forty, so few tokens leave a bucket's gradient that all but cancels.
    errors = attention.check(size, np.random.default_rng(0), interpret=True)
    assert tuple(errors) == names and all(0 < error < 2e-2 for error in errors.values())
    rows = {row["name"]: row for row in attention.measure(size, errors, repeats=1, interpret=True)}
    assert rows["cuDNN, causal, no bias"]["skipped"]
    for name in ("XLA, plain", *names):
        assert positive(rows[name], *TIMES, "forward_ms") and rows[name]["ratio_to_cudnn"] is None
    assert [rows[name]["error"] for name in names] == list(errors.values())
    assert [row["name"] for row in attention.rows()] == ["attention"]
