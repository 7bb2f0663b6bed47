import dataclasses

import jax
import numpy as np
import pytest

from suan_jax import models
from suan_jax.config import Config, DataConfig
from suan_jax.errors import UserError
from suan_jax.layers import masking
from suan_jax.layers.sparse_pattern import sees
from suan_jax.models.light_suan import LightSuan
from suan_jax.models.suan import Suan, SuanModule
from tests.models.random_model import random_model
from tests.random_batch import random_batch, random_schema

SCHEMA = random_schema()
LENGTH = 11


class MaskedModule(SuanModule):
    """SUAN under the mask of LightSUAN's rule."""

    def self_attention(self, batch):
        attend, bias, mask = super().self_attention(batch)
        order = masking.token_order(batch)
        rule = sees(order[:, :, None] - order[:, None, :], self.config.window, self.config.dilation)
        return attend, bias, mask & rule


def build(config):
    return models.build(Config(model=config, data=DataConfig(max_len=LENGTH)), SCHEMA)


@pytest.mark.parametrize(("window", "dilation"), [(LENGTH + 1, 3), (2, 1)])
def test_a_window_over_everything_and_a_dilation_of_one_are_suan(window, dilation):
    settings = {"head": (8,), "pool": "causal"}
    suan, variables = random_model(Suan(**settings), max_len=LENGTH)
    light = build(LightSuan(**settings, window=window, dilation=dilation))
    fresh = jax.eval_shape(light.init, jax.random.key(0), random_batch(0, SCHEMA))
    assert jax.tree.structure(fresh) == jax.tree.structure(variables)
    batch = random_batch(1, SCHEMA, length=LENGTH, candidates=2, lengths=[11, 7, 1, 0, 4])
    logits = [jax.jit(model.apply)(variables, batch).logits for model in (light, suan)]
    np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("across_time", [False, True])
def test_it_is_suan_under_its_mask(across_time):
    config = LightSuan(head=(8,), window=2, dilation=3, pool="causal", absolute_position=not across_time)
    light, variables = random_model(config, max_len=LENGTH)
    fields = {
        field.name: getattr(light.module, field.name)
        for field in dataclasses.fields(light.module)
        if field.name not in ("parent", "name")
    }
    masked = dataclasses.replace(light, module=MaskedModule(**fields))
    batch = random_batch(
        2, SCHEMA, length=LENGTH, candidates=3, lengths=[11, 7, 1, 0, 10], across_time=across_time
    )
    suan = build(Suan(head=(8,), pool="causal", absolute_position=not across_time))
    logits = [jax.jit(model.apply)(variables, batch).logits for model in (light, masked, suan)]
    np.testing.assert_allclose(*logits[:2], rtol=1e-5, atol=1e-5)
    assert np.abs(logits[0] - logits[2]).max() > 1e-2


@pytest.mark.smoke
def test_operations_fall_with_dilation_and_never_count_below_the_useful_ones():
    counted = [LightSuan(window=16, dilation=r).flops_per_example(SCHEMA, 1000) for r in (1, 2, 4, 8)]
    assert counted == sorted(counted, reverse=True)
    useful = [LightSuan(window=16, dilation=r).useful_flops(SCHEMA, np.array([1000])) for r in (1, 2, 4, 8)]
    assert all(a < b for a, b in zip(useful, counted, strict=True))
    assert useful[0] == Suan().useful_flops(SCHEMA, np.array([1000]))


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("field", "value"), [("window", 0), ("dilation", 0), ("pool", "all"), ("pool", "mean"), ("grade", 9)]
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(UserError, match=rf"config\.model\.{field} is '?{value}"):
        build(LightSuan(**{field: value}))


def test_without_biases_it_still_scores():
    settings = {"position_bias": False, "time_bias": False}
    model, variables = random_model(LightSuan(head=(8,), window=2, **settings), max_len=LENGTH)
    assert not {"position_bias", "time_bias"} & set(variables["params"])
    batch = random_batch(4, SCHEMA, length=LENGTH)
    assert np.isfinite(jax.jit(model.apply)(variables, batch).logits).all()
