import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax import kernels
from suan_jax.errors import UserError
from suan_jax.kernels.reference import sees
from suan_jax.layers import fused_attention, masking
from suan_jax.models.hstu import Hstu
from suan_jax.models.light_suan import LightSuan
from suan_jax.models.suan import Suan
from tests.models.random_model import random_model
from tests.random_batch import random_batch, random_schema

SCHEMA = random_schema()


@pytest.fixture
def interpreted(monkeypatch):
    """Makes the kernel run, slowly, where there is no GPU."""
    run = functools.partial(kernels.fused_attention, interpret=True, tiles=kernels.Tiles(16))
    monkeypatch.setattr(kernels, "fused_attention", run)
    monkeypatch.setattr(kernels, "refusal", lambda head_dim, dtype: "")


def value_and_gradients(config, batch):
    model, variables = random_model(config)

    def loss(params):
        return jnp.sum(jnp.sin(model.apply({**variables, "params": params}, batch).logits))

    return jax.jit(jax.value_and_grad(loss))(variables["params"])


@pytest.mark.parametrize(
    "model",
    [
        functools.partial(Suan, pool="causal", absolute_position=False),
        Hstu,
        functools.partial(LightSuan, window=2, dilation=2),
    ],
)
def test_a_model_is_the_same_with_the_kernel(model, interpreted):
    across_time = not model(head=(8,)).across_time_refusal()
    batch = random_batch(1, SCHEMA, rows=2, length=6, candidates=2, lengths=[6, 3], across_time=across_time)
    batch = batch.replace(candidate_mask=jnp.array([[True, True], [True, False]]))
    plain, fused = (
        value_and_gradients(model(head=(8,), layers=1, attention=attention), batch)
        for attention in ("plain", "fused")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), plain, fused)
    tables = [leaf for leaf in jax.tree.leaves(plain[1]) if leaf.shape[-1] in (15, 130)]
    assert len(tables) == 2 and all((np.abs(leaf) > 1e-4).any() for leaf in tables)


@pytest.mark.smoke
@pytest.mark.parametrize("across_time", [False, True])
def test_a_relation_is_the_visibility(across_time):
    batch = random_batch(3, SCHEMA, candidates=3, across_time=across_time)
    batch = batch.replace(candidate_mask=batch.candidate_mask.at[0, 1].set(False))
    of = fused_attention.relation(batch)
    np.testing.assert_array_equal(sees(of.tokens, of.history), masking.visibility(batch))


def test_without_a_gpu_the_plain_form_is_used_and_the_reason_is_said_once(capsys):
    fused_attention._say_once.cache_clear()
    for _ in range(2):
        assert not fused_attention.fuses("fused", 16, jnp.float32)
    assert not fused_attention.fuses("auto", 16, jnp.float32)
    said = capsys.readouterr().err
    assert said.count("plain form") == 1 and "NVIDIA" in said


@pytest.mark.parametrize("model", [Suan, Hstu, LightSuan])
def test_unknown_choices_are_named(model):
    with pytest.raises(UserError, match=r"config\.model\.attention is 'flash', expected one of auto"):
        model(attention="flash").module(SCHEMA, 7)
