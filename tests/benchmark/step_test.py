import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from suan_jax.benchmark import (
    devices,
    seeds,
    step,
    step_pieces,
)
from suan_jax.benchmark.timing import Timing
from suan_jax.benchmark.training_step import compiled_step, copy, device_batches, set_up_step
from suan_jax.training.optimizer import global_norm
from tests.benchmark.rows import TIMES, positive


def test_step_rows_hold_what_they_promise():
    size = step.Size(8, 1, 2, max_len=3, batch_size=4, head=(4,), items=1024)
    size = dataclasses.replace(size, beside=(*step.SMALL[0].beside, *step.LARGE[0].beside), pieces=True)
    rows = list(step.measure([size], repeats=2))
    whole, parts = rows[:4], rows[4:]
    assert [row["name"] for row in whole] == [
        "suan",
        "suan without time bias",
        "din",
        "suan, plain attention",
    ]
    assert [row["time_bias"] for row in whole] == [True, False, False, True]
    assert [row["attention"] for row in whole] == ["plain", "plain", None, "plain"]
    for row in whole:
        assert positive(row, *TIMES, "examples_per_second", "tokens_per_second", "flops_per_second")
        assert row["tokens_per_second"] == pytest.approx(4 * row["examples_per_second"])
        assert row["examples_per_second"] == pytest.approx(4 / row["ms"] * 1e3)
        assert row["dtype"] == "float32" and row["peak_share"] is None and row["useful_share"] is None
    assert positive(whole[0], "ratio_to_no_time_bias", "speedup_over_plain")
    assert [row["name"].removeprefix("suan: ") for row in parts] == [
        "gather of the tables' rows",
        "forward",
        "backward",
        "dense optimizer",
        "update of the tables' rows",
        "the rest",
    ]
    assert all(positive(row, "ms", "share_of_step") for row in parts if row["name"] != "suan: the rest")


def test_the_parts_of_a_step_add_up_to_it():
    pieces = {
        name: Timing(np.array(seconds))
        for name, seconds in {
            step_pieces.GATHER: [1.0, 2.0],
            step_pieces.FORWARD: [3.0, 3.0],
            step_pieces.BOTH: [8.0, 9.0],
            step_pieces.DENSE: [0.5, 0.5],
            step_pieces.UPDATE: [1.5, 1.5],
        }.items()
    }
    parts = step_pieces.split(Timing(np.array([20.0, 30.0])), pieces)
    np.testing.assert_allclose(parts["backward"].seconds, [5.0, 6.0])
    np.testing.assert_allclose(parts["the rest"].seconds, [9.0, 17.0])


def test_pieces_compute_what_the_step_computes():
    size = step.Size(8, 1, 2, max_len=3, batch_size=4, head=(4,), items=1024)
    setup = set_up_step(step._variants(size)["suan"][0], size.max_len, size.batch_size, size.items)
    state, batches = setup.fresh_state(), device_batches(setup)
    programs = step_pieces.compiled_pieces(setup)
    calls = step_pieces.piece_calls(programs, state, batches)
    _, metrics = setup.compile_step()(copy(state), batches[0])
    np.testing.assert_allclose(calls[step_pieces.FORWARD](0), metrics["loss"], rtol=1e-5)
    dense, _ = calls[step_pieces.BOTH](0)
    np.testing.assert_allclose(global_norm(dense), metrics["grad_norm"], rtol=1e-4)


def test_packed_step_rows_are_of_as_many_examples():
    size = step.Size(8, 1, 2, max_len=3, batch_size=4, head=(4,), items=1024, candidates=2)
    packed, alone = step.measure([size], repeats=2)
    assert [(row["name"], row["candidates"]) for row in (packed, alone)] == [
        ("suan packed", 2),
        ("suan causal", 1),
    ]
    assert packed["examples_per_second"] == pytest.approx(4 / packed["ms"] * 1e3)
    assert packed["tokens_per_second"] == pytest.approx(2 * 5 / packed["ms"] * 1e3)
    assert alone["tokens_per_second"] == pytest.approx(4 * 4 / alone["ms"] * 1e3)
    assert positive(packed, "speedup_over_unpacked", "flops_per_second")


def test_a_step_that_fails_is_a_row_with_the_reason(monkeypatch):
    def compiled(setup):
        if setup.config.model.name == "din":
            raise RuntimeError("out of memory\nat great length")
        return compiled_step(setup)

    monkeypatch.setattr(step, "compiled_step", compiled)
    size = step.Size(8, 1, 2, max_len=3, batch_size=4, head=(4,), items=1024, beside=("din",))
    failed, done = step.measure([size], repeats=1)
    assert (failed["name"], failed["skipped"]) == ("din", "RuntimeError: out of memory")
    assert done["name"] == "suan" and positive(done, *TIMES)


def test_seeds_rows_hold_what_they_promise():
    size = seeds.Size(max_len=3, batch_size=4, width=8, layers=1, head=(4,), items=1024)
    one, two = seeds.measure(size, (2,), repeats=2)
    assert [(row["name"], row["seeds"]) for row in (one, two)] == [("one", 1), ("together", 2)]
    assert one["speedup_over_one_by_one"] == 1.0 and positive(two, *TIMES, "speedup_over_one_by_one")
    assert two["examples_per_second"] == pytest.approx(2 * 4 / two["ms"] * 1e3)
    assert [row["name"] for row in seeds.rows() if "skipped" in row] == ["together"]


def test_one_device_is_a_row_with_the_reason():
    [row] = devices.rows()
    assert "JAX_NUM_CPU_DEVICES" in row["skipped"]


def test_devices_rows_hold_what_they_promise():
    code = (
        "import json; from suan_jax.benchmark import devices as d;"
        "size = d.Size(8, 1, 2, max_len=3, batch_size=8, head=(4,), items=1024);"
        "print(json.dumps(list(d.measure(size, repeats=2))))"
    )
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert not [row for row in rows if "skipped" in row]
    scaling = {(row["name"], row["devices"]): row for row in rows if "efficiency" in row}
    assert list(scaling) == [("weak", 1), ("weak", 2), ("strong", 2), ("weak", 4), ("strong", 4)]
    for (name, count), row in scaling.items():
        assert row["batch_size"] == (8 if name == "strong" else 8 * count)
        assert row["examples_per_second"] == pytest.approx(row["batch_size"] / row["ms"] * 1e3)
        assert row["efficiency"] == pytest.approx(row["speedup_over_one"] / count)
    assert scaling["weak", 1]["efficiency"] == 1.0
    parts = [row for row in rows if row["name"].startswith("weak: ")]
    assert [row["name"] for row in parts][:2] == ["weak: whole step", "weak: gather of the tables' rows"]
    assert len(parts) == 7 and all(math.isfinite(row["exchange_ms"]) for row in parts)
    fed, placed = rows[-2:]
    assert (fed["name"], placed["name"]) == ("batches from the host", "input alone")
    assert positive(fed, *TIMES, "ratio_to_step") and positive(placed, *TIMES, "bytes_per_second")
