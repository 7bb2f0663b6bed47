import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.layers import masking, time_buckets
from suan_jax.models.hstu import GRADES, Hstu, HstuLayer, SiluAttention, next_time
from suan_jax.models.suan import Suan
from tests.models.intermediates import tokens_and_states
from tests.models.random_model import body_parameters, layer_norm, random_model
from tests.random_batch import garble_pads, pad_history, random_batch, random_schema

SCHEMA = random_schema()


def silu(x):
    return x / (1 + np.exp(-x))


def reference_layer(x, p, age, timed, n):
    """One layer on one row's valid tokens, the candidate last, pair by pair, in NumPy."""
    tokens, width = x.shape
    u, v, q, k = (silu(np.einsum("tc,chd->thd", layer_norm(x, p["norm"]), p["uvqk"][:, i])) for i in range(4))
    w_position = p["attention"]["position_bias"]["table"]
    w_time = p["attention"]["time_bias"]["table"]
    out = np.zeros_like(v)
    for i in range(tokens):
        after = min(i + 1, tokens - 1)  # the candidate's own time, for no token follows it
        for j in range(i + 1):
            known = timed[after] and timed[j]
            bucket = time_buckets.host_bucket(age[after] - age[j]) if known else time_buckets.UNKNOWN
            back_i, back_j = tokens - 1 - i, tokens - 1 - j
            rab = w_position[back_i - back_j + n - 1] + w_time[bucket]
            for h in range(v.shape[1]):
                out[i, h] += silu(q[i, h] @ k[j, h] + rab) / n * v[j, h]
    gated = u.reshape(tokens, width) * layer_norm(out.reshape(tokens, width), p["attention_norm"])
    return x + gated @ p["out"]["kernel"]


@pytest.mark.parametrize("length", [7, 9])
def test_the_layers_are_their_equations_whatever_the_padding(length):
    config = Hstu(head=(8,), layers=2)
    model, variables = random_model(config, max_len=9)
    batch = random_batch(1, SCHEMA, rows=3, lengths=[7, 4, 0], unknown=0.3)
    assert (batch.history_mask & ~batch.history_timed).any()
    padded = garble_pads(pad_history(batch, length), SCHEMA)
    tokens, last = tokens_and_states(model, variables, padded)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"]["layers"])
    for row, count in enumerate([7, 4, 0]):
        keep = np.array([*range(count), length])
        age = np.append(batch.history_age[row, :count], 0).astype(np.int64)
        timed = np.append(batch.history_timed[row, :count], True)
        x = np.asarray(tokens[row][keep], np.float64)
        for layer in range(2):
            x = reference_layer(x, jax.tree.map(lambda leaf: leaf[layer], params), age, timed, n=10)  # noqa: B023
        np.testing.assert_allclose(last[row][keep], x, rtol=1e-3, atol=1e-3)


def test_attention_divides_by_the_config_s_n_and_not_by_the_padded_length():
    # On its own: the LayerNorm that follows hides any common factor but for its ε.
    batch = random_batch(7, SCHEMA, rows=1, length=4, lengths=[3])
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 1, 5, 2, 4))
    attention, mask = SiluAttention(max_tokens=10), masking.visibility(batch)
    tables = {"position_bias": {"table": jnp.zeros(19)}, "time_bias": {"table": jnp.ones(130)}}
    bucket = jnp.zeros((1, 5, 5), jnp.uint8)
    arrays = (jnp.asarray(x, jnp.float32) for x in (q, k, v))
    out = attention.apply({"params": tables}, *arrays, bucket, mask, batch)
    weight = silu(np.einsum("thd,shd->tsh", q[0], k[0]) + 1) / 10 * np.asarray(mask[0])[:, :, None]
    np.testing.assert_allclose(out[0], np.einsum("tsh,shd->thd", weight, v[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.smoke
def test_the_next_time_is_the_next_event_s_then_the_candidate_s():
    batch = random_batch(2, SCHEMA, rows=3, length=4, candidates=2, lengths=[4, 2, 0], unknown=0.0)
    batch = batch.replace(
        history_age=jnp.array([[90, 70, 50, 30], [80, 60, 5, 6], [1, 2, 3, 4]]),
        history_timed=jnp.array([[True, True, False, True], [True, True, False, False], [False] * 4]),
        candidate_age=jnp.full((3, 2), 10),
    )
    age, timed = next_time(batch)
    np.testing.assert_array_equal(
        age, [[70, 50, 30, 10, 10, 10], [60, 10, 10, 10, 10, 10], [10, 10, 10, 10, 10, 10]]
    )
    np.testing.assert_array_equal(timed, [[True, False, True, True, True, True], [True] * 6, [True] * 6])


def test_a_later_request_changes_the_last_history_state_alone():
    model, variables = random_model(Hstu(head=(8,), layers=1, absolute_position=False))
    batch = random_batch(3, SCHEMA, lengths=np.full(5, 7), unknown=0.0)
    later = batch.replace(  # a day later, and no hour of the week moves with it
        history_age=batch.history_age + 86_400, week_second=(batch.week_second + 86_400) % (7 * 86_400)
    )
    before, after = (tokens_and_states(model, variables, b)[1] for b in (batch, later))
    moved = np.abs(before - after).max(axis=(0, 2))[:7]
    assert (moved[:6] < 1e-5).all() and moved[6] > 1e-3


def test_the_scan_is_its_layers_one_after_another():
    model, variables = random_model(Hstu(head=(8,), layers=3))
    batch = random_batch(4, SCHEMA)
    x, scanned = tokens_and_states(model, variables, batch)
    keys = masking.token_age(batch), masking.token_timed(batch)
    bucket = time_buckets.pair_buckets(*next_time(batch), *keys)
    layer = HstuLayer(model.module.size.heads, model.module.max_len + 1, jnp.float32)
    for index in range(3):
        own = jax.tree.map(lambda leaf: leaf[index], variables["params"]["layers"])  # noqa: B023
        x, _ = layer.apply({"params": own}, x, (bucket, masking.visibility(batch)), batch)
    np.testing.assert_allclose(x, scanned, atol=1e-4)


def test_remat_changes_no_value_and_no_gradient():
    batch = random_batch(5, SCHEMA)
    results = []
    for remat in (False, True):
        model, variables = random_model(Hstu(head=(8,), layers=2, remat=remat))

        def loss(params, model=model, variables=variables):
            return jnp.sum(jnp.sin(model.apply({**variables, "params": params}, batch).logits))

        results.append(jax.jit(jax.value_and_grad(loss))(variables["params"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results)


def test_the_backward_pass_keeps_no_scores():
    batch = random_batch(6, SCHEMA, rows=4, length=100)
    bytes_of = []
    for layers in (1, 5):
        model, variables = random_model(Hstu(head=(8,), layers=layers, heads=16), max_len=100)

        def loss(params, model=model, variables=variables):
            return jnp.sum(model.apply({**variables, "params": params}, batch).logits)

        memory = jax.jit(jax.grad(loss)).lower(variables["params"]).compile().memory_analysis()
        bytes_of.append(memory.temp_size_in_bytes)
    assert (bytes_of[1] - bytes_of[0]) / 4 < 4 * 4 * 16 * 101**2  # one layer's scores, in float32


def test_grades_have_the_body_of_suan_s():
    for grade in range(len(GRADES)):
        assert body_parameters(Hstu(grade=grade)) == pytest.approx(
            body_parameters(Suan(grade=grade)), rel=0.1
        ), grade
    assert dataclasses.astuple(Hstu(grade=3, layers=1).size(SCHEMA)) == (1, 768, 8)


def test_candidates_of_different_times_are_refused_with_the_reason():
    assert "candidate's time" in Hstu().across_time_refusal()
