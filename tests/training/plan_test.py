import math

import jax
import pytest

from suan_jax.batch import blank_batch
from suan_jax.errors import UserError
from suan_jax.training.plan import MOST_ROWS, plan, planned_setup, print_plan
from suan_jax.training.setup import set_up
from suan_jax.training.sharding import batch_sharding
from tests.training.runs import tiny

DEVICES = 256
TABLES = ("item", "category", "subcategory", "brand", "price")
ROWS = dict.fromkeys(TABLES, 2_000_000_000)  # 10 billion


def _pod(*overrides, rows=ROWS):
    config = tiny("train.batch_size=1024", "train.eval_batch_size=1024", *overrides, arguments="model=suan")
    return planned_setup(config, DEVICES, rows)


@pytest.fixture(scope="module")
def pod():
    return _pod("mesh.data=64", "mesh.model=4", "model.heads=4")


def test_ten_billion_rows_are_split_over_a_pod(pod):
    made = plan(pod)
    assert made.table_rows > 10_000_000_000
    by_name = {array.name: array for array in made.arrays}
    for table in TABLES:
        array = by_name[f"tables/{table}"]
        assert array.shape[0] < 2**31
        assert array.spec == "data*model, -"
        assert array.bytes_per_device == math.prod(array.shape) * 4 // DEVICES
    assert by_name["step"].bytes_per_device == 4
    assert made.bytes_per_device == sum(array.bytes_per_device for array in made.arrays)
    assert made.bytes_per_device < 16 * 2**30


def test_a_plan_is_what_a_run_has():
    config = tiny(arguments="model=suan")
    made = {array.name: array.bytes_per_device for array in plan(planned_setup(config, 1, {})).arrays}
    state = set_up(config).fresh_state()
    assert made == {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.nbytes
        for path, leaf in jax.tree.leaves_with_path(state)
    }


def test_the_table_has_a_line_for_each_large_array(pod, capsys):
    made = plan(pod)
    print_plan(made, least=1 << 20)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "the state on each of 256 devices, data 64 x model 4"
    (line,) = [line for line in lines if line.startswith("tables/item ")]
    assert line.split()[1:] == "2000000000 x 4 float32 data*model, - 125000000 119.2 MiB".split()
    assert lines[-1].startswith(f"{made.table_rows:,} table rows; {made.bytes_per_device:,} bytes per device")


def test_what_does_not_divide_is_told(capsys):
    config = tiny("train.batch_size=60", "train.eval_batch_size=60", "mesh.data=3", arguments="model=suan")
    made = plan(planned_setup(config, 3, {"item": 768, "category": 1000}))
    print_plan(made, least=12_000)
    (line,) = capsys.readouterr().err.splitlines()
    named = "whole on each device, as the mesh does not divide their sizes: tables/category; tables"
    assert line.startswith(named)  # 768 = 3 x 256, and the others are small
    print_plan(plan(planned_setup(tiny(arguments="model=suan"), 1, {})))
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ({"itme": 5}, "has no table 'itme', the nearest is item"),
        ({"item": 2}, "--rows=item=2 is out of range"),
        ({"item": MOST_ROWS + 1}, f"expected 3 to {MOST_ROWS}"),
    ],
)
def test_rows_are_checked(rows, sentence):
    with pytest.raises(UserError, match=sentence):
        _pod(rows=rows)


def test_a_mesh_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"config\.train\.eval_batch_size is 90, expected a multiple of"):
        _pod("train.eval_batch_size=90")
    with pytest.raises(UserError, match="data=-1, model=3 does not fit 256 devices"):
        _pod("mesh.model=3")


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_pod_step_lowers_for_another_platform(pod, platform, monkeypatch):
    # Rates are put on devices, of which a plan has none.
    monkeypatch.setattr(jax, "device_put", lambda leaf, _: leaf)
    step = pod.compile_step()
    config, data = pod.config, batch_sharding(pod.mesh)
    batch = blank_batch(pod.log.schema, config.train.batch_size, config.data.max_len)
    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=data), batch)
    lowered = jax.jit(step).trace(pod.abstract, batch).lower(lowering_platforms=(platform,))
    text = lowered.as_text()
    assert f"mhlo.num_partitions = {DEVICES}" in text
    assert "2000000000x4xf32" in text
