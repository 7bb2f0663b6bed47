import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from suan_jax.layers.attention import attention
from suan_jax.layers.experts import (
    ExpertAttention,
    ExpertFeedForward,
    Router,
    RouterLoad,
    add_loads,
    balance_loss,
    sum_loads,
)

BATCH, TOKENS, WIDTH, EXPERTS, HIDDEN, HEADS = 2, 5, 8, 4, 6, 2
VALID = jnp.asarray([[True] * 5, [True] * 3 + [False] * 2])


def states(seed, tokens=TOKENS):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(BATCH, tokens, WIDTH)), jnp.float32)


def plain(variables):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), nn.meta.unbox(variables["params"]))


def gates(x, kernel, k):
    """The gates of one token, expert by expert."""
    p = np.exp(x @ kernel)
    p /= p.sum()
    result = np.zeros(len(p))
    for expert in np.argsort(-p)[:k]:
        result[expert] = p[expert]
    return result


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.smoke
@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_feed_forward_is_a_loop_over_experts(k):
    x = states(0)
    module = ExpertFeedForward(HIDDEN, EXPERTS, k)
    variables = module.init(jax.random.key(0), x, VALID)
    y, _ = module.apply(variables, x, VALID)
    p = plain(variables)
    for b, t in np.ndindex(BATCH, TOKENS):
        token, expected = np.asarray(x[b, t], np.float64), np.zeros(WIDTH)
        for expert, gate in enumerate(gates(token, p["router"]["kernel"], k)):
            if gate:
                expected += gate * gelu(token @ p["hidden"][expert]) @ p["out"][expert]
        np.testing.assert_allclose(y[b, t], expected, atol=1e-5)


@pytest.mark.parametrize("cross", [False, True])
def test_attention_is_a_loop_over_experts_gated_by_the_key_and_by_the_query(cross):
    x, memory = states(1), states(2, tokens=4) if cross else None
    valid_keys = jnp.asarray([[True] * 4, [True] * 2 + [False] * 2]) if cross else VALID
    mix = functools.partial(attention, bias_BxTxS=None, mask_BxTxS=valid_keys[:, None])
    module = ExpertAttention(HEADS, EXPERTS, top_k=2)
    arguments = (x, VALID, mix, memory, valid_keys if cross else None)
    variables = module.init(jax.random.key(0), *arguments)
    y, load = module.apply(variables, *arguments)
    p, keys = plain(variables), np.asarray(memory if cross else x, np.float64)
    kernel = p["router"]["kernel"]
    for b, t in np.ndindex(BATCH, TOKENS):
        query, expected = np.asarray(x[b, t], np.float64), np.zeros(WIDTH)
        own = gates(query, kernel, 2)
        seen = keys[b][np.asarray(valid_keys[b])]
        for h in range(HEADS):
            scores = seen @ p["key"][:, h] @ (query @ p["query"][:, h]) / np.sqrt(WIDTH / HEADS)
            weight = np.exp(scores) / np.exp(scores).sum()
            a = np.zeros(WIDTH // HEADS)
            for w, key in zip(weight, seen, strict=True):
                for expert, gate in enumerate(gates(key, kernel, 2)):
                    a += w * gate * key @ p["value"][expert, :, h]
            for expert in range(EXPERTS):
                expected += own[expert] * a @ p["out"][expert, h]
        np.testing.assert_allclose(y[b, t], expected, atol=1e-5)
    assert load.tokens == VALID.sum() + (valid_keys.sum() if cross else 0)


def test_no_token_changes_what_another_gets():
    module = ExpertFeedForward(HIDDEN, EXPERTS, 1)
    x = states(3)
    variables = module.init(jax.random.key(0), x, VALID)
    crowd = jnp.broadcast_to(x[:1, :1], x.shape).at[1, 4].set(x[1, 4])  # all at one expert
    np.testing.assert_allclose(
        module.apply(variables, crowd, VALID)[0][1, 4], module.apply(variables, x, VALID)[0][1, 4], atol=1e-6
    )


def test_the_router_learns_from_the_task_when_one_expert_is_chosen():
    module = ExpertFeedForward(HIDDEN, EXPERTS, 1)
    x = states(4)
    variables = module.init(jax.random.key(0), x, VALID)
    gradient = jax.grad(lambda v: jnp.sum(jnp.sin(module.apply(v, x, VALID)[0])))(variables)
    assert (np.abs(plain(gradient)["router"]["kernel"]) > 1e-6).all()


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("calls", [1, 2, 5])
def test_balance_is_one_where_it_is_perfect_whatever_the_calls(k, calls):
    # As many tokens as experts; the i-th prefers the i-th, next the one after it: a circle.
    preference = np.stack([np.roll(np.array([3.0, 2, 1, 0]), i) for i in range(EXPERTS)])
    x, valid = jnp.asarray(preference[None], jnp.float32), jnp.ones((1, EXPERTS), bool)
    router = Router(EXPERTS, k)
    load = router.apply({"params": {"kernel": jnp.eye(EXPERTS)}}, x, valid)[1]
    total = sum_loads(jax.tree.map(lambda leaf: jnp.stack([leaf] * calls), load))
    np.testing.assert_allclose(total.shares(), k / EXPERTS)
    np.testing.assert_allclose(balance_loss([total, load]), 1.0, rtol=1e-6)


def test_balance_grows_with_imbalance_and_spreads_the_load():
    x = jnp.ones((1, 6, WIDTH))
    router, valid = Router(EXPERTS, 1), jnp.ones((1, 6), bool)
    variables = {"params": {"kernel": jnp.zeros((WIDTH, EXPERTS)).at[:, 2].set(5.0)}}

    def loss(variables):
        return balance_loss([router.apply(variables, x, valid)[1]])

    value, gradient = jax.value_and_grad(loss)(variables)
    assert value == pytest.approx(EXPERTS, rel=1e-3)  # everything at one expert
    variables["params"]["kernel"] = variables["params"]["kernel"] / 20
    gradient = jax.grad(loss)(variables)["params"]["kernel"]
    assert (gradient[:, 2] > 1e-3).all() and (gradient[:, 0] < -1e-4).all()


def test_loads_leave_pads_out_and_add_up():
    router = Router(EXPERTS, 2)
    x = states(5)
    variables = router.init(jax.random.key(0), x, VALID)
    noise = jnp.where(VALID[:, :, None], x, 100 * states(6))
    load, garbled = router.apply(variables, x, VALID)[1], router.apply(variables, noise, VALID)[1]
    jax.tree.map(np.testing.assert_array_equal, load, garbled)
    assert load.tokens == 8 and load.chosen_E.sum() == 16
    np.testing.assert_allclose(load.probability_E.sum(), 8, rtol=1e-6)
    rows = [router.apply(variables, x[i : i + 1], VALID[i : i + 1])[1] for i in range(2)]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), add_loads(*rows), load)
    none = router.apply(variables, x, jnp.zeros_like(VALID))[1]
    assert isinstance(none, RouterLoad) and balance_loss([none]) == 0


def test_logits_of_a_router_are_float32_of_float32_states():
    router = Router(EXPERTS, 1)
    # Two experts that bfloat16 cannot tell apart.
    kernel = jnp.zeros((WIDTH, EXPERTS)).at[0, 1].set(1.0).at[0, 3].set(1.0).at[1, 3].set(1.0)
    x = jnp.zeros((1, 1, WIDTH)).at[0, 0, 0].set(1.0).at[0, 0, 1].set(1e-5)
    gate, _ = router.apply({"params": {"kernel": kernel}}, x, jnp.ones((1, 1), bool))
    assert gate.dtype == jnp.float32
    assert np.argmax(gate[0, 0]) == 3


def test_one_expert_has_no_router():
    module = ExpertFeedForward(HIDDEN, 1, 1)
    x = states(7)
    variables = module.init(jax.random.key(0), x, VALID)
    p = plain(variables)
    assert set(p) == {"hidden", "out"}
    expected = gelu(np.asarray(x, np.float64) @ p["hidden"][0]) @ p["out"][0]
    np.testing.assert_allclose(module.apply(variables, x, VALID)[0], expected, atol=1e-5)
