"""The operations that each model's config counts are those that its compiled forward pass has."""

import functools

import jax
import pytest

from suan_jax import models
from suan_jax.config import Config, DataConfig
from suan_jax.models.bst import Bst
from suan_jax.models.can import Can
from suan_jax.models.din import Din
from suan_jax.models.eta import Eta
from suan_jax.models.hstu import Hstu
from suan_jax.models.light_suan import LightSuan
from suan_jax.models.loopctr import StackCtr
from suan_jax.models.sim import HardSim, SoftSim
from suan_jax.models.suan import Suan
from suan_jax.models.twin import Twin
from tests.random_batch import random_batch, random_schema

SCHEMA = random_schema()
# So wide that products outweigh what is not counted; so many rows that what a batch costs once counts little.
INTEREST = {"head": (32,), "embedding_width": 64, "attention_hidden": (256, 128)}
SEARCH = {**INTEREST, "k": 20, "recent": 10}
WIDE = {"head": (32,), "layers": 1, "width": 256, "heads": 2}
SPARSE = {"head": (8,), "layers": 1, "width": 128, "heads": 2, "dilation": 4}
ACROSS = {"pool": "causal", "absolute_position": False}
STACK = {"head": (32,), "width": 128, "heads": 2}


def operations(config, max_len=40, rows=4, candidates=1, **how):
    """Those of a row, as XLA counts them; it counts the body of a scan once."""
    model = models.build(Config(model=config, data=DataConfig(max_len=max_len)), SCHEMA)
    batch = random_batch(0, SCHEMA, rows=rows, length=max_len, candidates=candidates)
    variables = jax.eval_shape(model.init, jax.random.key(0), batch)
    score = jax.jit(functools.partial(model.apply, **how))
    return score.lower(variables, batch).compile().cost_analysis()["flops"] / rows


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (Din(**INTEREST), {}),
        (Can(**INTEREST), {}),
        (Eta(**SEARCH), {"rows": 8}),
        (SoftSim(**SEARCH), {"rows": 8}),
        (HardSim(**SEARCH), {"rows": 8}),
        (Twin(head=(32,), embedding_width=64, k=20, heads=16), {"rows": 64}),
        (Bst(head=(32,), width=128, heads=2), {}),
        (Bst(head=(32,), width=128, heads=2, pool="flatten"), {}),
        (Hstu(**WIDE), {}),
        (Hstu(**WIDE), {"candidates": 8}),
        (Suan(**WIDE), {}),
        (Suan(**WIDE, pool="causal"), {}),
        (Suan(**WIDE, pool="causal"), {"candidates": 8}),
        (Suan(**WIDE, pool="all"), {"candidates": 3}),
        (LightSuan(**SPARSE, window=8), {"max_len": 100, "rows": 2}),
        (LightSuan(**{**SPARSE, "dilation": 1}, window=4), {"max_len": 100, "rows": 2}),
        (LightSuan(**SPARSE, window=8), {"max_len": 100, "rows": 2, "candidates": 20}),
        (LightSuan(**SPARSE, **ACROSS, window=8), {"max_len": 100, "rows": 2, "candidates": 20}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_operations_are_those_that_run(config, shape):
    run, length = operations(config, **shape), shape.get("max_len", 40)
    candidates = shape.get("candidates", 1)
    assert config.training_flops_per_row(SCHEMA, length, candidates) / 3 == pytest.approx(run, rel=0.05)
    if candidates == 1:
        assert config.flops_per_example(SCHEMA, length) == pytest.approx(run, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "depths"),
    [({}, (0, 2, None)), ({"streams": 1, "experts": 1}, (2,)), ({"queries": 8, "recent": 10}, (2,))],
    ids=["plain", "one_stream", "queries"],
)
def test_operations_of_each_depth_are_those_that_run(changes, depths):
    config = StackCtr(**STACK, trained_loops=2, **changes)
    for loops in depths:
        run = operations(config, **({"all_depths": True} if loops is None else {"loops": loops}))
        training = config.training_flops_per_example(SCHEMA, 40) / 3
        counted = training if loops is None else config.flops_at(SCHEMA, 40, loops)
        assert counted == pytest.approx(run, rel=0.05), loops
    assert config.flops_at(SCHEMA, 40, 0) == config.flops_per_example(SCHEMA, 40)


def test_operations_of_a_packed_row_of_all_depths_are_those_that_run():
    config = StackCtr(**STACK, trained_loops=1, inferred_loops=1)
    run = operations(config, candidates=6, all_depths=True)
    assert config.training_flops_per_row(SCHEMA, 40, 6) / 3 == pytest.approx(run, rel=0.05)
