"""Packed rows train as the same examples one by one do, and let no logit see what it must not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.layers import embedding
from suan_jax.models.bst import Bst
from suan_jax.models.can import Can
from suan_jax.models.din import Din
from suan_jax.models.hstu import Hstu
from suan_jax.models.loopctr import LoopCtr
from suan_jax.models.sim import SoftSim
from suan_jax.models.suan import Suan
from suan_jax.models.twin import Twin
from suan_jax.training.step import loss_terms
from tests.models.random_model import random_model
from tests.random_batch import random_batch, random_schema, rows_of, single_example

SCHEMA = random_schema()
REQUEST = {
    "bst": Bst(head=(8,)),
    "hstu": Hstu(head=(8,), layers=2),
    # Its balance loss counts each token that is computed: the history of a packed row once, not M times.
    "loopctr": LoopCtr(
        head=(8,), width=16, trained_loops=1, inferred_loops=1, streams=1, experts=2, balance_weight=0.0
    ),
    "suan": Suan(head=(8,)),
}
ACROSS_TIME = {
    "can": Can(head=(8,)),
    "din": Din(head=(8,)),
    "soft_sim": SoftSim(head=(8,), k=3, recent=2),
    "suan_causal": Suan(head=(8,), pool="causal", absolute_position=False),
    "twin": Twin(head=(8,), k=3),
}
MODELS = REQUEST | ACROSS_TIME

build = functools.cache(lambda name: random_model(MODELS[name], schema=SCHEMA))


def packed(name):
    """A batch of five rows of three candidate slots, of which four are empty."""
    batch = random_batch(0, SCHEMA, candidates=3, across_time=name in ACROSS_TIME, lengths=[7, 7, 5, 3, 0])
    filled = np.array([3, 1, 2, 3, 2])
    return batch.replace(candidate_mask=jnp.arange(3) < filled[:, None])


def one_by_one(batch):
    """The same examples, each in a row of its own."""
    parts = [single_example(batch, index) for index in range(3)]
    keep = np.flatnonzero(np.asarray(batch.candidate_mask).T)
    return rows_of(jax.tree.map(lambda *x: jnp.concatenate(x), *parts), keep)


def gradients(name, batch):
    """Of the training loss: with respect to parameters and tables; the loss, and the moved statistics."""
    model, variables = build(name)

    def loss(params, tables):
        moved = {**variables, "params": params, "tables": tables}
        output, updates = model.apply(moved, batch, train=True, mutable=["batch_stats"])
        terms, _ = loss_terms(output, batch)
        return sum(terms.values()), updates

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(
        variables["params"], variables["tables"]
    )


def assert_close(got, expected):
    """To 2e-5 of each array's largest value: float32, summed in another order."""
    for (path, a), (_, b) in zip(
        jax.tree.leaves_with_path(got), jax.tree.leaves_with_path(expected), strict=True
    ):
        tolerance = 2e-5 * max(float(np.abs(b).max()), 1e-2)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", MODELS)
def test_a_packed_batch_has_the_gradient_of_its_examples_one_by_one(name):
    batch = packed(name)
    alone = one_by_one(batch)
    assert alone.label.shape == (11, 1)
    got, expected = gradients(name, batch), gradients(name, alone)
    assert all(table.any() for table in expected[1][1].values())
    assert_close(got, expected)


@pytest.mark.parametrize("name", ACROSS_TIME)
def test_no_later_event_and_no_other_candidate_moves_a_logit(name):
    model, variables = build(name)
    batch = packed(name)
    rows = embedding.gather(model.lookups, variables["tables"], batch)

    @jax.jit
    def slopes(rows, index):
        def logit(rows):
            return jnp.sum(model.apply_rows(variables, rows, batch).logits[:, index])

        return jax.grad(logit)(rows)

    for index in range(3):
        found = slopes(rows, index)
        unseen = np.arange(7) >= np.asarray(batch.visible[:, index, None])
        filled = np.asarray(batch.candidate_mask[:, index])
        for feature, slope in found["history"].items():
            assert (np.asarray(slope)[unseen & filled[:, None]] == 0).all(), feature
        assert any(np.asarray(slope)[filled].any() for slope in found["history"].values())
        for group in ("candidate", "context"):
            for feature, slope in found[group].items():
                others = np.delete(np.asarray(slope), index, axis=1)
                assert (others == 0).all(), feature
                assert np.asarray(slope)[filled, index].any(), feature
