"""Blocks one after another, as accelerators run them, against the loop that a CPU runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.batch import without_ids
from suan_jax.layers import stack
from suan_jax.models.bst import Bst
from suan_jax.models.hstu import Hstu
from suan_jax.models.suan import Suan
from tests.models.random_model import random_model
from tests.random_batch import random_batch


def _unrolled(monkeypatch, unrolled):
    monkeypatch.setattr(stack, "_unroll", lambda layers: layers if unrolled else 1)


@pytest.mark.parametrize(
    "config",
    [
        Suan(head=(8,), layers=3),
        Suan(head=(8,), layers=3, remat=True),
        Hstu(head=(8,), layers=3),
        Bst(head=(8,), layers=3),
    ],
    ids=["suan", "suan_remat", "hstu", "bst"],
)
def test_an_unrolled_stack_is_the_loop(monkeypatch, config):
    model, variables = random_model(config)
    batch = random_batch(1, model.schema)

    def loss(params):
        return jnp.sum(jnp.sin(model.apply({**variables, "params": params}, batch).logits))

    results, lines = [], []
    for unrolled in (False, True):
        _unrolled(monkeypatch, unrolled)
        program = jax.jit(jax.value_and_grad(lambda params: loss(params)))
        lines.append(program.lower(variables["params"]).as_text().count("stablehlo.while"))
        results.append(program(variables["params"]))
    assert lines[1] < lines[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results)


def test_an_unrolled_stack_keeps_the_history_of_each_block(monkeypatch):
    model, variables = random_model(Suan(head=(8,), layers=3))
    batch = random_batch(2, model.schema)
    caches, logits = [], []
    for unrolled in (False, True):
        _unrolled(monkeypatch, unrolled)
        caches.append(model.encode(variables, batch))
        logits.append(model.apply_cached(variables, caches[-1], without_ids(batch)).logits)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *caches)
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)


def test_a_cpu_loops_and_an_accelerator_does_not_but_for_many_blocks(monkeypatch):
    assert stack._unroll(4) == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert [stack._unroll(layers) for layers in (1, 4, 16, 17)] == [1, 4, 16, 1]
