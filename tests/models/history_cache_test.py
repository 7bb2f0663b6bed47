"""Tolerances are absolute, for logits of order 1, in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax import models
from suan_jax.batch import blank_batch, without_ids
from suan_jax.errors import UserError
from suan_jax.models.bst import Bst
from suan_jax.models.din import Din
from suan_jax.models.hstu import Hstu
from suan_jax.models.light_suan import LightSuan
from suan_jax.models.loopctr import LoopCtr, StackCtr
from suan_jax.models.suan import Suan
from tests.models.random_model import random_model
from tests.random_batch import one_candidate, random_batch, random_ids, random_schema

SCHEMA = random_schema()
CASES = {
    "suan": Suan(head=(8,)),
    "suan_causal": Suan(head=(8,), pool="causal", remat=True),
    "suan_bare": Suan(head=(8,), time_bias=False, position_bias=False, absolute_position=False),
    "light_suan": LightSuan(head=(8,), window=2, dilation=2),
    "light_suan_causal": LightSuan(head=(8,), window=1, dilation=3, pool="causal"),
    "hstu": Hstu(head=(8,), layers=2),
    "loopctr": LoopCtr(head=(8,), width=16, trained_loops=2, inferred_loops=2),
    "loopctr_0": LoopCtr(head=(8,), width=16, trained_loops=2, inferred_loops=0),
    "loopctr_queries": LoopCtr(head=(8,), width=16, trained_loops=1, inferred_loops=1, queries=2, recent=3),
    "stackctr": StackCtr(head=(8,), width=16, layers=2, trained_loops=1, inferred_loops=1, streams=1),
}
each_case = pytest.mark.parametrize("case", CASES)


@functools.cache
def build(case):
    return random_model(CASES[case], schema=SCHEMA, noise=0.15)


@functools.cache
def compiled(case):
    model, _ = build(case)
    return (
        jax.jit(lambda variables, batch: model.apply(variables, batch).logits),
        jax.jit(model.encode),
        jax.jit(lambda variables, cache, batch: model.apply_cached(variables, cache, batch).logits),
    )


def request(seed, candidates):
    """Histories of all lengths, none too, with the candidates of one request each."""
    return random_batch(seed, SCHEMA, rows=4, lengths=[7, 4, 1, 0], candidates=candidates)


def blank(batch):
    """The histories alone, each with a candidate of which only the time and the view are known."""
    empty = blank_batch(SCHEMA, *batch.history_mask.shape)
    one = one_candidate(batch, 0)
    return one.replace(candidate=empty.candidate, context=empty.context, dense=jnp.zeros_like(one.dense))


def with_candidates(batch, seed):
    shape = batch.candidate_mask.shape
    rng = np.random.default_rng(seed)
    return batch.replace(
        candidate=random_ids(rng, SCHEMA, SCHEMA.candidate, shape),
        context=random_ids(rng, SCHEMA, SCHEMA.context, shape),
        dense=jnp.asarray(rng.normal(size=batch.dense.shape), jnp.float32),
    )


@each_case
def test_cached_logits_are_those_of_the_packed_pass_and_of_each_alone(case):
    plain, encode, cached = compiled(case)
    variables = build(case)[1]
    several, single = request(1, 3), one_candidate(request(1, 3), 0)
    cache = encode(variables, blank(several))
    for seed in (2, 3):  # several requests on one cache
        batch = with_candidates(several, seed)
        got = cached(variables, cache, without_ids(batch))
        np.testing.assert_allclose(got, plain(variables, batch), atol=1e-5)
        alone = [plain(variables, one_candidate(batch, m)) for m in range(3)]
        np.testing.assert_allclose(got, np.concatenate(alone, axis=1), atol=1e-5)
        assert np.std(got, axis=1).min() > 1e-3
    batch = with_candidates(single, 4)
    got = cached(variables, cache, without_ids(batch))
    np.testing.assert_allclose(got, plain(variables, batch), atol=1e-5)


@each_case
def test_the_history_is_read_from_the_cache_alone(case):
    _, encode, cached = compiled(case)
    variables = build(case)[1]
    batch = request(5, 3)
    other = batch.replace(history=random_ids(np.random.default_rng(6), SCHEMA, SCHEMA.history, (4, 7)))
    before, after = (
        cached(variables, encode(variables, blank(b)), without_ids(batch)) for b in (batch, other)
    )
    assert (np.abs(before - after) > 1e-4)[:3].all()
    np.testing.assert_array_equal(before[3], after[3])  # it has no event


@each_case
def test_padded_candidates_change_nothing(case):
    _, encode, cached = compiled(case)
    variables = build(case)[1]
    batch = request(7, 3)
    cache = encode(variables, blank(batch))
    padded = batch.replace(candidate_mask=batch.candidate_mask.at[:, 2].set(False))
    both = [cached(variables, cache, without_ids(b))[:, :2] for b in (batch, padded)]
    np.testing.assert_allclose(*both, atol=1e-6)


@each_case
def test_at_a_later_time_it_is_exact_or_refused(case):
    plain, encode, cached = compiled(case)
    model, variables = build(case)
    batch = request(8, 3)
    cache = encode(variables, blank(batch))
    later = batch.replace(
        history_age=batch.history_age + 100_000 * batch.history_mask,
        week_second=(batch.week_second + 100_000) % (7 * 24 * 3600),
    )
    expected = plain(variables, later)
    difference = np.abs(cached(variables, cache, without_ids(later)) - expected)
    if model.config.cache_moment_refusal():
        assert difference[:2].max() > 1e-3
    else:
        assert difference.max() < 1e-5
        assert np.abs(expected - plain(variables, batch))[:2].max() > 1e-3


@pytest.mark.parametrize("config", [Suan(head=(8,), pool="all"), Bst(head=(8,)), Din(head=(8,))])
def test_models_that_cannot_keep_a_history_say_why(config):
    model, variables = random_model(config, schema=SCHEMA)
    with pytest.raises(UserError, match="histories cannot be kept: config") as caught:
        model.encode(variables, request(9, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.smoke
def test_every_model_says_whether_it_keeps_histories():
    can = {name for name, kind in models.registered().items() if not kind().cache_refusal()}
    assert can >= {"suan", "light_suan", "hstu", "loopctr", "stackctr"}
    assert not can & {"din", "can", "soft_sim", "hard_sim", "eta", "twin", "bst"}


@each_case
def test_nothing_is_kept_unless_asked_for(case):
    model, variables = build(case)
    assert "cache" not in variables
    batch = request(10, 1)
    _, updates = jax.eval_shape(functools.partial(model.apply, mutable=["batch_stats"]), variables, batch)
    assert "cache" not in updates
