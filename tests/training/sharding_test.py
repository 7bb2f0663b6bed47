import json
import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from suan_jax.config import MeshConfig, TrainConfig
from suan_jax.errors import UserError
from suan_jax.training.sharding import check_batch_size, make_mesh, place_batch
from tests.random_batch import random_batch, random_schema
from tests.training import mesh_run
from tests.training.mesh_run import MIDDLE, MODELS
from tests.training.runs import ROOT


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """By model: what one device saw, what eight saw, and each going on from the other's checkpoint."""
    folder = tmp_path_factory.mktemp("mesh")

    def run(devices, *arguments):
        environment = {"JAX_NUM_CPU_DEVICES": devices, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        subprocess.run(
            [sys.executable, mesh_run.__file__, str(folder), *arguments],
            env={**os.environ, **environment},
            check=True,
            timeout=300,
        )

    run("1", "one", "1,1", "none")
    run("8", "eight", "4,2", "one")
    run("1", "one", "1,1", "eight")
    names = {"one": "one_after_none", "eight": "eight_after_one", "one again": "one_after_eight"}
    return {
        model: {key: json.loads((folder / model / f"{name}.json").read_text()) for key, name in names.items()}
        for model in MODELS
    }


@pytest.mark.parametrize("model", MODELS)
def test_eight_devices_train_as_one_does(seen, model):
    one, eight = seen[model]["one"], seen[model]["eight"]
    assert (one["devices"], eight["devices"]) == (1, 8)
    assert len(one["losses"]) == 20
    np.testing.assert_allclose(eight["losses"], one["losses"], rtol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_goes_on_on_another_mesh(seen, model):
    expected = seen[model]["one"]["losses"][MIDDLE:]
    np.testing.assert_allclose(seen[model]["eight"]["resumed"], expected, rtol=1e-5)
    np.testing.assert_allclose(seen[model]["one again"]["resumed"], expected, rtol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_tables_are_split_by_rows_over_all_devices(seen, model):
    pieces = seen[model]["eight"]["pieces"]
    split = {path: pair for path, pair in pieces.items() if path.startswith(("tables/", "accumulators/"))}
    assert split
    for path, (whole, piece) in split.items():
        assert piece == [whole[0] // 8, *whole[1:]], path


def test_heads_and_hidden_layers_are_split_over_the_model_axis(seen):
    pieces = seen["suan"]["eight"]["pieces"]
    split_axes = {  # the first axis stacks the layers
        "blocks/attention/query": 2,
        "blocks/attention/out": 1,
        "blocks/feed_forward/gate/kernel": 2,
        "blocks/feed_forward/gate/bias": 1,
        "blocks/feed_forward/out/kernel": 1,
        "head/dense_0/kernel": 1,
        "blocks/norm_1/scale": None,
        "tokens/hour_table": None,
    }
    for parameter, split in split_axes.items():
        paths = [path for path in pieces if path.endswith(f"/{parameter}")]
        assert len(paths) == 3, paths  # Adam's two moments lie where the parameter lies
        for path in paths:
            whole, piece = pieces[path]
            assert piece == [size // 2 if axis == split else size for axis, size in enumerate(whole)], path


def test_sizes_that_the_axis_does_not_divide_stay_whole(seen):
    pieces = seen["din"]["eight"]["pieces"]
    whole, piece = pieces["params/head/dense_0/kernel"]
    assert whole[1] == 7
    assert piece == whole
    assert pieces["step"] == pieces["key"] == [[], []]


@pytest.mark.smoke
@pytest.mark.parametrize(("data", "model"), [(1, 1), (-1, 1), (1, -1)])
def test_one_device_is_a_mesh(data, model):
    mesh = make_mesh(MeshConfig(data=data, model=model), jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "model": 1}


@pytest.mark.parametrize(("data", "model"), [(2, 1), (-1, 2), (-1, 3), (3, -1)])
def test_a_mesh_that_does_not_fit_is_refused(data, model):
    with pytest.raises(UserError, match=rf"config.mesh data={data}, model={model} does not fit 1 devices"):
        make_mesh(MeshConfig(data=data, model=model), jax.devices()[:1])


def test_batch_sizes_must_divide():
    mesh = types.SimpleNamespace(shape={"data": 4})
    check_batch_size(mesh, TrainConfig(batch_size=12), "batch_size")
    with pytest.raises(UserError, match=r"config.train.eval_batch_size is 6, expected a multiple of the 4"):
        check_batch_size(mesh, TrainConfig(eval_batch_size=6), "eval_batch_size")


def test_a_placed_batch_is_the_batch():
    mesh = make_mesh(MeshConfig())
    batch = jax.tree.map(np.asarray, random_batch(0, random_schema()))
    placed = place_batch(mesh, batch)
    expected = NamedSharding(mesh, PartitionSpec("data"))
    for got, given in zip(jax.tree.leaves(placed), jax.tree.leaves(batch), strict=True):
        np.testing.assert_array_equal(got, given)
        assert got.sharding == expected
