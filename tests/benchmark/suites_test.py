import json
import math
import sys

import jax
import numpy as np
import pytest

from suan_jax.benchmark import (
    attention,
    attention_forms,
    fuxictr,
    lengths,
    lengths_figure,
    loops,
    run,
    serving,
    step,
    tables,
    torch_step,
)
from suan_jax.benchmark import input as input_suite
from suan_jax.config import SyntheticConfig
from suan_jax.errors import UserError
from suan_jax.layers.sparse_pattern import sees
from tests.benchmark.rows import TIMES, positive


def test_loops_rows_hold_what_they_promise():
    size = loops.Size(max_len=3, batch_size=4, width=8, head=(4,), items=1024)
    rows = list(loops.measure(size, loops=(0, 2), repeats=2))
    names = [("loopctr", 0), ("loopctr", 2), ("loopctr, remat", 2), ("stackctr", 2)]
    assert [(row["name"], row["loops"]) for row in rows] == names
    for row in rows:
        assert positive(
            row, *TIMES, "compile_seconds", "program_lines", "temporary_bytes", "ratio_to_no_loops"
        )
        assert row["width"] == 8
    assert rows[0]["ms_per_loop"] is None and rows[0]["ratio_to_no_loops"] == 1.0
    assert rows[1]["ms_per_loop"] == pytest.approx((rows[1]["ms"] - rows[0]["ms"]) / 2)


def test_serving_rows_hold_what_they_promise(monkeypatch):
    monkeypatch.setattr(serving, "_DILATIONS", (2,))
    size = serving.Size(max_len=20, candidates=3, width=8, layers=1, head=(4,), items=1024)
    *models, host = serving.measure(size, repeats=2)
    assert [(row["name"], row["dilation"]) for row in models] == [("suan", None), ("light_suan, r = 2", 2)]
    for row in models:
        assert positive(row, *TIMES, "encode_ms", "packed_ms", "one_by_one_ms", "speedup_over_one_by_one")
        assert row["kept_bytes"] >= 2 * 4 * 20 * 8  # keys and values of a layer
    assert positive(host, *TIMES)


def test_a_serving_row_that_cannot_be_measured_has_the_reason(monkeypatch):
    def unable(*_):
        raise ImportError("no such library\nin this place")

    monkeypatch.setattr(serving, "_DILATIONS", ())
    monkeypatch.setattr(serving, "_calls", unable)
    monkeypatch.setattr(serving, "log_encoders", unable)
    size = serving.Size(max_len=20, candidates=3, width=8, layers=1, head=(4,), items=1024)
    rows = list(serving.measure(size, repeats=1))
    assert [row["name"] for row in rows] == ["suan", "raw values to a batch, on the host"]
    assert {row["skipped"] for row in rows} == {"ImportError: no such library"}


@pytest.mark.smoke
def test_tables_rows_hold_what_they_promise():
    size = tables.Size(rows=(1024, 4096), width=4, ids=256)
    rows = list(tables.measure(size, repeats=2))
    assert [(row["name"], row["rows"]) for row in rows] == [
        (name, count)
        for name in ("touched rows", "touched rows, bfloat16", "dense adam")
        for count in (1024, 4096)
    ]
    for row in rows:
        assert positive(row, *TIMES, "ratio_to_smallest")
        assert 1 < row["distinct_ids"] < row["ids"] == 256
    assert rows[0]["ratio_to_smallest"] == rows[2]["ratio_to_smallest"] == 1.0
    assert (
        positive(rows[0], "bytes_per_second")
        and positive(rows[2], "bytes_per_second")
        and rows[0]["bandwidth_share"] is None
    )


def test_a_table_that_does_not_fit_is_a_row_with_the_reason():
    size = tables.Size(rows=(1024, 4096), width=4, ids=256)
    # Room for both tables in both dtypes with accumulators, and for Adam's copies of the smaller one.
    rows = list(tables.measure(size, repeats=1, memory=(20 + 12) * (1024 + 4096) + 80 * 1024))
    skipped = [row for row in rows if "skipped" in row]
    assert [(row["name"], row["rows"]) for row in skipped] == [("dense adam", 4096)]
    assert "GiB" in skipped[0]["skipped"] and len(rows) == 6


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


@pytest.mark.parametrize(("name", "small", "large"), [("step", 1, 7), ("tables", 1, 5), ("input", 1, 0)])
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
    def ends():
        yield {"name": "b", "ms": 2.0}
        raise ZeroDivisionError

    monkeypatch.setattr(tables, "rows", lambda: iter([{"name": "a", "ms": 1.0}]))
    monkeypatch.setattr(step, "rows", ends)
    with pytest.raises(ZeroDivisionError):
        run.run(["tables", "step"], tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["suite"] == ["tables"] and [row["name"] for row in written["rows"]] == ["a", "b"]


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


def test_attention_rows_hold_what_they_promise(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    shape = attention_forms.Shape(batch_size=2, tokens=8, heads=1, head_dim=16, window=2, dilation=2)
    # The same draw every time: in one of forty, so few tokens leave a bucket's gradient that all but cancels.
    errors = attention.check(shape, np.random.default_rng(0), interpret=True)
    names = ("kernel, softmax", "kernel, silu", "kernel, local and dilated")
    assert tuple(errors) == names and all(0 < error < 2e-2 for error in errors.values())
    size = attention.Size(shape, attention.SIZES[0].names, published=(1.0, 2.0))
    measured = list(attention.measure([size], errors, repeats=1, interpret=True))
    rows = {row["name"]: row for row in measured if "ms" in row}
    skipped = {row["name"]: row["skipped"] for row in measured if "skipped" in row}
    assert skipped.keys() == {"cuDNN, causal, no bias", "PyTorch SDPA, causal, no bias"}
    assert skipped["PyTorch SDPA, causal, no bias"] == "torch is not installed"
    assert list(rows) == ["XLA, plain", *names[:2]]
    for name, row in rows.items():
        assert positive(row, *TIMES, "forward_ms", "examples_per_second", "speedup_over_plain")
        assert row["ratio_to_cudnn"] is None and row["error"] == errors.get(name)
    assert rows["kernel, silu"]["ratio_to_published"] == rows["kernel, silu"]["ms"] / 2
    assert [row["name"] for row in attention.rows()] == ["attention"]


def test_pairs_and_flops_are_those_that_the_mask_leaves():
    shape = attention_forms.Shape(2, 9, heads=3, head_dim=5, window=3, dilation=2)
    seen = sees(np.arange(9)[:, None] - np.arange(9), 3, 2)
    assert attention_forms.pairs(shape, attention_forms.LIGHT) == seen.sum()
    assert attention_forms.pairs(shape, attention_forms.SOFTMAX) == 45
    # Seven products of 45 pairs in 2 rows and 3 heads of 5.
    assert attention_forms.flops(shape, attention_forms.CUDNN) == 7 * 2 * 45 * 2 * 3 * 5


def test_lengths_rows_hold_what_they_promise(tmp_path):
    shapes = [attention_forms.Shape(2, tokens, 1, 16, window=2) for tokens in (4, 8)]
    rows = list(lengths.measure(shapes, dilations=(2,), repeats=1, interpret=True))
    names = ["kernel, softmax", "cuDNN, causal, no bias", "XLA, plain", "LightSUAN, k = 2, r = 2"]
    assert [(row["name"], row["tokens"]) for row in rows] == [(name, n) for n in (4, 8) for name in names]
    assert [row["name"] for row in rows if "skipped" in row] == [names[1]] * 2
    for row in rows:
        if "skipped" not in row:
            assert positive(row, *TIMES, "visible_pairs", "examples_per_second")
            assert (row["dilation"] == 2) == (row["name"] == names[3]) == ("speedup_over_full" in row)
    assert [row["name"] for row in lengths.rows()] == ["lengths"]


@pytest.mark.smoke
def test_the_figure_of_lengths_has_a_curve_for_each_form(tmp_path):
    pytest.importorskip("matplotlib")
    full = {"name": "full", "tokens": 8, "batch_size": 2, "ms": 3.0, "window": None, "dilation": None}
    light = full | {"name": "light", "window": 2, "dilation": 3}
    assert (lengths_figure.scored(full), lengths_figure.scored(light)) == (64, 8 * (2 + 6 / 3))
    rows = [full, full | {"tokens": 16, "ms": 6.0}, light, {"name": "no memory", "skipped": "so it is"}]
    lengths_figure.draw(rows, tmp_path / "lengths")
    drawn = (tmp_path / "lengths.svg").read_text()
    assert "full" in drawn and "light" in drawn and "no memory" not in drawn
    assert (tmp_path / "lengths.png").is_file()


def test_torch_rows_hold_what_they_promise():
    pytest.importorskip("torch", reason="needs PyTorch")
    size = torch_step.Size(8, 1, 2, max_len=3, batch_size=4, head=(4,), items=1024)
    rows = list(torch_step.measure(size, repeats=2, compiled=False))
    assert [row["name"] for row in rows] == ["suan", "PyTorch", "PyTorch, without biases"]
    assert all(positive(row, *TIMES, "examples_per_second") for row in rows)
    assert positive(rows[0], "speedup_over_pytorch", "speedup_over_pytorch_without_biases")


def test_without_torch_there_is_a_row_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "suan_jax.benchmark.torch_suan", raising=False)
    monkeypatch.delattr("suan_jax.benchmark.torch_suan", raising=False)
    [row] = torch_step.measure(torch_step.Size(8, 1, 2, max_len=3, batch_size=4))
    assert row["skipped"] == "torch is not installed"
