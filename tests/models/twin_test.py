import jax
import numpy as np
import pytest

from suan_jax import models
from suan_jax.config import Config, DataConfig
from suan_jax.errors import UserError
from suan_jax.layers import time_buckets
from suan_jax.layers.tokens import concat
from suan_jax.models.twin import Twin, cross_names
from tests.models.intermediates import gathered, returned_by
from tests.models.random_model import random_model
from tests.random_batch import mixed_batch, random_batch, random_schema

SCHEMA = random_schema()
DATA = DataConfig(max_len=7)
ALL, FEW = Twin(head=(8,)), Twin(head=(8,), k=3)


def reference_alpha(model, variables, batch):
    """α of every candidate and event, (B, M, L, H), from the equation, in float64."""
    rows = gathered(model, variables, batch)
    batch = jax.device_get(batch)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    names = ("item", "category", "tags")
    q, k = (np.asarray(concat(rows[group], names), np.float64) for group in ("candidate", "history"))
    action = np.asarray(rows["history"]["action"], np.float64)
    q_heads = np.einsum("bmq,qhd->bmhd", q, params["query"]["query"])
    k_heads = np.einsum("blc,chd->blhd", k, params["query"]["key"])
    alpha = np.einsum("bmhd,blhd->bmlh", q_heads, k_heads) / np.sqrt(8)
    kernel, beta = params["cross"], params["beta"]
    for b, m, slot in np.argwhere(np.arange(7) < batch.visible[:, :, None]):
        gap = time_buckets.host_bucket(int(batch.history_age[b, slot]) - int(batch.candidate_age[b, m]))
        gap = int(gap) if batch.history_timed[b, slot] else time_buckets.UNKNOWN
        back = int(batch.visible[b, m]) - slot
        cross = (params["gap_table"][gap], params["position_table"][back], action[b, slot])
        for index, row in enumerate(cross):
            alpha[b, m, slot] += (row @ kernel[index]) * beta[index]
    return alpha


@pytest.mark.smoke
def test_features_are_split_in_those_of_the_item_and_those_of_the_meeting():
    assert cross_names(SCHEMA) == ("action",)


def test_search_and_attention_have_the_scores_of_the_equation():
    model, variables = random_model(FEW)
    batch = mixed_batch(0, SCHEMA)
    _, found, score_BxMxHxK = returned_by("attend", model, variables, batch)
    alpha = reference_alpha(model, variables, batch)
    batch = jax.device_get(batch)
    for b, m in np.ndindex(5, 3):
        seen = batch.visible[b, m]
        expected = np.argsort(-alpha[b, m, :seen].sum(-1))[:3]
        np.testing.assert_array_equal(found.index_BxMxK[b, m, : len(expected)], expected)
        np.testing.assert_array_equal(found.mask_BxMxK[b, m], np.arange(3) < seen)
        scores = score_BxMxHxK[b, m].T[: len(expected)]
        np.testing.assert_allclose(scores, alpha[b, m, expected], rtol=1e-4, atol=1e-4)


def test_what_is_retrieved_is_the_top_of_the_scores_that_attention_uses():
    batch = mixed_batch(1, SCHEMA)
    variables = random_model(FEW)[1]
    results = []
    for config in (FEW, ALL):
        model = models.build(Config(model=config, data=DATA), SCHEMA)
        results.append(returned_by("attend", model, variables, batch))
    (_, few, few_scores), (_, every, every_scores) = results
    summed = np.where(every.mask_BxMxK, every_scores.sum(2), -np.inf)
    assert (np.diff(np.where(np.isinf(summed), -1e9, summed), axis=-1) <= 1e-5).all()  # best first
    np.testing.assert_array_equal(few.mask_BxMxK, every.mask_BxMxK[:, :, :3])
    taken = [np.where(few.mask_BxMxK, found.index_BxMxK[:, :, :3], -1) for found in (few, every)]
    np.testing.assert_array_equal(*taken)
    mask = np.broadcast_to(few.mask_BxMxK[:, :, None], few_scores.shape)
    np.testing.assert_allclose(few_scores[mask], every_scores[..., :3][mask], rtol=1e-5, atol=1e-5)


def test_events_that_are_not_retrieved_have_no_gradient():
    model, variables = random_model(FEW)
    batch = random_batch(2, SCHEMA, lengths=np.full(5, 7))
    rows = gathered(model, variables, batch)
    found = returned_by("attend", model, variables, batch)[1]
    gradient = jax.jit(jax.grad(lambda rows: model.apply_rows(variables, rows, batch).logits.sum()))(rows)
    taken = (np.arange(7) == found.index_BxMxK[:, 0][:, :, None]).any(1)
    for name, rows in jax.device_get(gradient["history"]).items():
        np.testing.assert_array_equal((rows != 0).any(-1), taken, name)


@pytest.mark.parametrize(("field", "value"), [("k", 0), ("heads", 0), ("grade", 1), ("dtype", "float16")])
def test_bad_settings_are_named(field, value):
    with pytest.raises(UserError, match=rf"config\.model\.{field} is '?{value}"):
        models.build(Config(model=Twin(**{field: value})), SCHEMA)
