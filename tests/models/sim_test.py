import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax import models
from suan_jax.config import Config
from suan_jax.errors import UserError
from suan_jax.layers import masking
from suan_jax.layers.head import Head
from suan_jax.layers.loss import log_loss
from suan_jax.models.search import candidate_rows, history_rows
from suan_jax.models.sim import HardSim, SoftSim
from suan_jax.schema import OOV
from tests.models.intermediates import gathered, returned_by
from tests.models.random_model import random_model
from tests.random_batch import mixed_batch, random_batch, random_schema

SCHEMA = random_schema()
SOFT, HARD = SoftSim(head=(8,), k=3, recent=2, auxiliary_hidden=(6,)), HardSim(head=(8,), k=3, recent=2)


def soft_scores(params, rows):
    """r (B, M, L) from its equation, and e."""
    e, t, kernels = history_rows(SCHEMA, rows), candidate_rows(SCHEMA, rows), params["search_query"]
    return jnp.einsum("blw,bmw->bml", e @ kernels["key"][:, 0], t @ kernels["query"][:, 0]), e


def test_hard_search_takes_the_most_recent_events_of_the_candidates_category():
    batch = mixed_batch(0, SCHEMA, lengths=np.full(5, 7))
    # Few categories, the one outside the vocabulary among them, so that more than K events match.
    batch = batch.replace(
        candidate={**batch.candidate, "category": OOV + batch.candidate["category"] % 3},
        history={**batch.history, "category": jnp.where(batch.history["category"] % 4 > 0, OOV + 1, OOV)},
    )
    model, variables = random_model(HARD)
    found, auxiliary = returned_by("search", model, variables, batch)
    assert auxiliary == {}
    batch, sizes = jax.device_get(batch), []
    for b, m in np.ndindex(5, 3):
        category = batch.candidate["category"][b, m]
        events = batch.history["category"][b, : batch.visible[b, m]]
        expected = [] if category == OOV else np.flatnonzero(events == category)[::-1][:3]
        taken = found.index_BxMxK[b, m][found.mask_BxMxK[b, m]]
        np.testing.assert_array_equal(taken, expected)
        sizes.append((category, len(taken), (events == category).sum()))
    assert any(n == 3 < total for _, n, total in sizes) and any(c == OOV and total for c, _, total in sizes)


def test_soft_search_takes_the_best_products_and_no_pad_before_an_event():
    model, variables = random_model(SOFT)
    batch = mixed_batch(1, SCHEMA)
    found, _ = returned_by("search", model, variables, batch)
    r, _ = jax.device_get(jax.jit(soft_scores)(variables["params"], gathered(model, variables, batch)))
    batch = jax.device_get(batch)
    negative = 0
    for b, m in np.ndindex(5, 3):
        seen = batch.visible[b, m]
        expected = np.argsort(-r[b, m, :seen])[:3]
        np.testing.assert_array_equal(found.index_BxMxK[b, m, : len(expected)], expected)
        np.testing.assert_array_equal(found.mask_BxMxK[b, m], np.arange(3) < seen)
        negative += seen < 7 and (r[b, m, :seen] < 0).any()
    assert negative > 3  # a pad that scored 0 would have come before these


def test_the_auxiliary_loss_is_that_of_the_weighted_sum():
    model, variables = random_model(SOFT)
    batch = mixed_batch(2, SCHEMA)
    rows = gathered(model, variables, batch)

    def expected(variables):
        r, e = soft_scores(variables["params"], rows)
        pooled = jnp.einsum("bml,ble->bme", jnp.where(masking.candidate_visibility(batch), r, 0.0), e)
        own = {name: variables[name]["auxiliary"] for name in ("params", "batch_stats")}
        head = Head(SCHEMA, (6,), SOFT.batch_norm_momentum)
        return log_loss(head.apply(own, pooled, rows, batch, True, mutable=["batch_stats"])[0], batch)

    dense = {name: variables[name] for name in ("params", "batch_stats")}

    def reported(weight, train=True):
        config = dataclasses.replace(SOFT, auxiliary_weight=weight)
        module = models.build(Config(model=config), SCHEMA).module
        apply = functools.partial(module.apply, train=train, mutable=["batch_stats"])
        return jax.jit(apply)(dense, rows, batch)[0].auxiliary

    loss = jax.jit(expected)(variables)
    for weight in (1.0, 0.5):
        np.testing.assert_allclose(reported(weight)["search"], weight * loss, rtol=1e-4)
    assert reported(1.0, train=False) == {}


def test_the_search_is_trained_by_its_own_loss_and_by_nothing_else():
    model, variables = random_model(SOFT)
    batch = mixed_batch(3, SCHEMA)
    rows = gathered(model, variables, batch)

    def gradients(term):
        def loss(params, rows):
            changed = {**variables, "params": params}
            return term(model.apply_rows(changed, rows, batch, train=True, mutable=["batch_stats"])[0])

        params, row_gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables["params"], rows)
        params, row_gradients = jax.device_get((params, row_gradients))
        moved = {name for name, tree in params.items() if any(x.any() for x in jax.tree.leaves(tree))}
        return moved, row_gradients

    search = {"search_query", "auxiliary"}
    moved, of_rows = gradients(lambda output: output.auxiliary["search"])
    assert moved == search
    unseen = ~np.asarray(masking.candidate_visibility(batch)).any(1)
    for name, gradient in of_rows["history"].items():
        assert (gradient[unseen] == 0).all() and gradient.any(), name
    moved, _ = gradients(lambda output: jnp.sum(jnp.sin(output.logits)))
    assert moved == set(variables["params"]) - search


def test_the_short_branch_sees_the_last_events_alone():
    model, variables = random_model(HARD)
    batch = random_batch(5, SCHEMA, lengths=np.full(5, 7))
    # No event has a candidate's category: the search finds nothing, the short branch is all there is.
    batch = batch.replace(candidate={**batch.candidate, "category": jnp.full_like(batch.visible, OOV)})
    rows = gathered(model, variables, batch)
    gradient = jax.jit(jax.grad(lambda rows: model.apply_rows(variables, rows, batch).logits.sum()))(rows)
    for name, moved in jax.device_get(gradient["history"]).items():
        assert (moved[:, :5] == 0).all() and (moved[:, 5:] != 0).any(), name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("grade", 1),
        ("k", 0),
        ("recent", 0),
        ("heads", 0),
        ("auxiliary_weight", -1.0),
        ("auxiliary_weight", math.inf),
        ("dtype", "float16"),
    ],
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(UserError, match=rf"config\.model\.{field} is '?{value}"):
        models.build(Config(model=SoftSim(**{field: value})), SCHEMA)


def test_a_log_without_categories_has_no_hard_search():
    with pytest.raises(UserError, match=r"schema\.category is None"):
        models.build(Config(model=HARD), dataclasses.replace(SCHEMA, category=None))
