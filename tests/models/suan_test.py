import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax import models
from suan_jax.config import Config
from suan_jax.errors import UserError
from suan_jax.layers import masking, time_buckets
from suan_jax.layers.bias import PositionBias, TimeBias
from suan_jax.layers.tokens import profile_tokens
from suan_jax.models.suan import GRADES, Suan, UnifiedAttentionBlock
from suan_jax.schema import Feature, Schema
from tests.models.intermediates import gathered, tokens_and_states
from tests.models.random_model import random_model
from tests.random_batch import random_batch, random_schema

SCHEMA = random_schema()


def shapes_of(config, schema):
    """The parameters' shapes."""
    model = models.build(Config(model=config), schema)
    return jax.eval_shape(model.init, jax.random.key(0), random_batch(0, schema))["params"]


def layer_of(stacked, index):
    return jax.tree.map(lambda leaf: leaf[index], stacked)


def norm(x, params):
    return params["scale"] * x / (np.sqrt(np.mean(x**2, -1, keepdims=True)) + 1e-6)


def softmax(x):
    weight = np.exp(x - x.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def reference_block(x, p, profile, bias):
    """The equations for one full history and its candidate, token by token, in NumPy."""
    tokens = len(x)

    def attend(name, queries, keys, scores_bias, sees):
        w = p[name]
        out = np.zeros_like(x)
        for i in range(tokens):
            seen = sees(i)
            for h in range(w["query"].shape[1]):
                q = queries[i] @ w["query"][:, h]
                scores = keys[seen] @ w["key"][:, h] @ q / np.sqrt(len(q)) + scores_bias(i, seen)
                out[i] += softmax(scores) @ (keys[seen] @ w["value"][:, h]) @ w["out"][h]
        return out

    x0 = norm(x, p["norm_1"])
    own = attend("attention", x0, x0, lambda i, seen: bias[i, seen], lambda i: np.arange(i + 1))
    x1 = norm(own + x0, p["norm_2"])
    c = attend("cross_attention", x1, profile, lambda i, seen: 0.0, lambda i: np.arange(len(profile)))
    z = np.maximum((x1 + c)[:-1].mean(0) @ p["alignment"]["squeeze"]["kernel"], 0)
    branches = np.stack([z @ p["alignment"][name]["kernel"] for name in ("self", "cross")], axis=-1)
    weights = softmax(branches)
    x2 = norm(weights[:, 0] * x1 + weights[:, 1] * c + x1, p["norm_3"])
    gate, value, out = (p["feed_forward"][name] for name in ("gate", "value", "out"))
    a = x2 @ gate["kernel"] + gate["bias"]
    hidden = a / (1 + np.exp(-a)) * (x2 @ value["kernel"] + value["bias"])
    return hidden @ out["kernel"] + out["bias"] + x2


def test_the_stack_is_its_equations():
    model, variables = random_model(Suan(head=(8,)))
    batch = random_batch(1, SCHEMA, rows=1, lengths=[7], unknown=0.0)
    rows = gathered(model, variables, batch)
    tokens, last = tokens_and_states(model, variables, batch, rows)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    profile = np.asarray(profile_tokens(SCHEMA, rows, batch)[0][0], np.float64)
    age = np.append(batch.history_age[0], 0).astype(np.int64)
    buckets = time_buckets.host_bucket(age[:, None] - age[None, :])
    back = np.arange(7, -1, -1)
    bias = params["time_bias"]["table"][buckets]
    bias = bias + params["position_bias"]["table"][back[:, None] - back[None, :] + 7]
    x = np.asarray(tokens[0], np.float64)
    for layer in range(2):
        x = reference_block(x, layer_of(params["blocks"], layer), profile, bias)
    np.testing.assert_allclose(last[0], x, rtol=1e-3, atol=1e-3)


def test_a_block_has_the_published_number_of_parameters():
    features = tuple(Feature(name, "ids") for name in ("item", "b", "c", "d", "e"))
    schema = Schema(
        tables={"ids": 9}, history=features, candidate=features, profile=(Feature("user", "ids"),)
    )
    shapes = shapes_of(Suan(head=(8,)), schema)
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes["blocks"]))
    assert total == 2 * 26_240


def test_the_scan_is_its_blocks_one_after_another():
    model, variables = random_model(Suan(head=(8,), layers=3))
    batch = random_batch(2, SCHEMA)
    rows = gathered(model, variables, batch)
    x, scanned = tokens_and_states(model, variables, batch, rows)
    params, module = variables["params"], model.module
    profile, profile_mask = profile_tokens(SCHEMA, rows, batch)
    position_bias = PositionBias(module.max_len + 1).apply({"params": params["position_bias"]}, batch)
    ages = masking.token_age(batch), masking.token_timed(batch)
    bucket = time_buckets.pair_buckets(*ages, *ages)
    bias = position_bias + TimeBias().apply({"params": params["time_bias"]}, bucket)
    block = UnifiedAttentionBlock(module.size.heads, "history", True, jnp.float32)
    for layer in range(3):
        own = layer_of(params["blocks"], layer)
        x, _ = block.apply({"params": own}, x, bias, masking.visibility(batch), profile, profile_mask, batch)
    np.testing.assert_allclose(x, scanned, atol=1e-4)


def test_remat_changes_no_value_and_no_gradient():
    batch = random_batch(3, SCHEMA)
    results = []
    for remat in (False, True):
        model, variables = random_model(Suan(head=(8,), remat=remat))

        def loss(params, model=model, variables=variables):
            return jnp.sum(jnp.sin(model.apply({**variables, "params": params}, batch).logits))

        results.append(jax.jit(jax.value_and_grad(loss))(variables["params"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results)


@pytest.mark.parametrize(("pool", "depends"), [("history", False), ("causal", False), ("all", True)])
def test_history_states_depend_on_the_candidate_only_where_the_pool_holds_it(pool, depends):
    model, variables = random_model(Suan(head=(8,), pool=pool))
    batch = random_batch(4, SCHEMA, lengths=np.full(5, 7))
    other = batch.replace(candidate={name: jnp.ones_like(ids) for name, ids in batch.candidate.items()})
    before, after = (tokens_and_states(model, variables, b)[1] for b in (batch, other))
    changed = np.abs(before - after).max(axis=(0, 2))
    assert (changed[:-1] > 1e-4).all() if depends else (changed[:-1] == 0).all()
    assert changed[-1] > 1e-2


def test_a_time_that_becomes_unknown_moves_the_logits():
    model, variables = random_model(Suan(head=(8,)))
    batch = random_batch(5, SCHEMA, lengths=np.full(5, 7), unknown=0.0)
    forgotten = batch.replace(history_timed=batch.history_timed.at[:, 3].set(False))
    apply = jax.jit(model.apply)
    assert (apply(variables, batch).logits != apply(variables, forgotten).logits).all()


def test_a_missing_profile_value_is_not_attended_to():
    model, variables = random_model(Suan(head=(8,)))
    batch = random_batch(6, SCHEMA, unknown=0.0)
    gone = {name: jnp.zeros_like(ids) for name, ids in batch.profile.items()}
    rows = gathered(model, variables, batch)

    def last(batch, rows):
        return tokens_and_states(model, variables, batch, rows)[1]

    # Rows that a missing value could not have: none of them may reach a state.
    noise = {**rows, "profile": jax.tree.map(lambda row: row + 5.0, rows["profile"])}
    missing = batch.replace(profile=gone)
    np.testing.assert_array_equal(last(missing, rows), last(missing, noise))
    assert (last(batch, rows) != last(batch, noise)).any()


def test_grades_span_three_orders_of_magnitude_and_sizes_given_win():
    macs = [Suan(grade=grade).size(SCHEMA) for grade in range(len(GRADES))]
    body = [size.layers * size.width**2 for size in macs]
    assert body == sorted(body) and body[-1] > 1000 * body[0]
    assert dataclasses.astuple(Suan(grade=3, layers=1, heads=16).size(SCHEMA)) == (1, 512, 16)
    assert Suan().size(SCHEMA).width == 4 * 8


@pytest.mark.parametrize(
    ("field", "value"),
    [("grade", 9), ("heads", 5), ("layers", 0), ("pool", "mean"), ("dtype", "float16"), ("width", 0)],
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(UserError, match=rf"config\.model\.{field} is '?{value}"):
        models.build(Config(model=Suan(**{field: value})), SCHEMA)


def test_ablations_take_out_their_parameters_and_nothing_else():
    def names(config):
        leaves = jax.tree_util.tree_leaves_with_path(shapes_of(config, SCHEMA))
        return {jax.tree_util.keystr(path) for path, _ in leaves}

    full = names(Suan())
    for field, part in {
        "rms_norm": "norm_",
        "position_bias": "position_bias",
        "time_bias": "time_bias",
    }.items():
        gone = {name for name in full if part in name and "head" not in name}
        assert names(Suan(**{field: False})) == full - gone and gone


def test_without_norms_and_biases_it_still_scores():
    model, variables = random_model(Suan(head=(8,), rms_norm=False, position_bias=False, time_bias=False))
    assert np.isfinite(jax.jit(model.apply)(variables, random_batch(8, SCHEMA)).logits).all()
