import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax import models
from suan_jax.config import Config, DataConfig
from suan_jax.errors import UserError
from suan_jax.models.loopctr import GRADES, LoopCtr, StackCtr
from suan_jax.models.suan import Suan
from suan_jax.training.summary import count_parameters
from tests.models.intermediates import returned_by
from tests.models.random_model import body_parameters, random_model
from tests.random_batch import garble_pads, random_batch, random_ids, random_schema

SCHEMA = random_schema()
SMALL = {"head": (8,), "width": 16, "heads": 2, "trained_loops": 2}
BATCH = random_batch(1, SCHEMA, candidates=2, lengths=[7, 4, 1, 0, 6])


# Compiling is nearly all of the cost here: parameters and outputs are shared as far as can be.
@functools.cache
def built(queries=0):
    return random_model(LoopCtr(**SMALL, queries=queries, recent=3))


def changed(kind=LoopCtr, **changes):
    """A model of other settings, for the parameters of `built`."""
    return models.build(Config(model=kind(**{**SMALL, **changes}), data=DataConfig(max_len=7)), SCHEMA)


def apply(model, variables, batch=BATCH, **how):
    return jax.jit(functools.partial(model.apply, **how))(variables, batch)


@functools.cache
def all_depths():
    return apply(*built(), all_depths=True)


def with_loop_as_stack(variables):
    """StackCTR's variables: every block with the parameters of the Loop."""
    params = dict(variables["params"])
    loop = params.pop("loop")
    return {**variables, "params": {**params, "stack_0": loop, "stack_1": loop}}


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_depth_alone_is_that_depth_of_one_pass(depth):
    alone = apply(*built(), loops=depth)
    assert alone.depth_logits is None and alone.diagnostics == {}
    np.testing.assert_allclose(alone.logits, all_depths().depth_logits[depth], atol=2e-5)


def test_depths_differ_and_the_logits_are_those_of_the_inferred_one():
    depth_logits = np.asarray(all_depths().depth_logits)
    assert depth_logits.shape == (3, 5, 2)
    assert (np.abs(np.diff(depth_logits, axis=0)).max(axis=(1, 2)) > 1e-2).all()
    np.testing.assert_array_equal(all_depths().logits, depth_logits[0])
    deeper = apply(changed(inferred_loops=2), built()[1], all_depths=True)
    np.testing.assert_array_equal(deeper.logits, deeper.depth_logits[2])


def test_without_loops_their_parameters_are_not_read():
    model, variables = built()
    params = variables["params"]
    poison = {**params, "loop": jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params["loop"])}
    score = jax.jit(model.apply)
    np.testing.assert_array_equal(
        score({**variables, "params": poison}, BATCH).logits, score(variables, BATCH).logits
    )
    assert np.isnan(apply(model, {**variables, "params": poison}, loops=1).logits).all()
    del poison["loop"]
    shape = jax.eval_shape(model.apply, {**variables, "params": poison}, BATCH).logits.shape
    assert shape == BATCH.label.shape


def losses(model, variables, params, train=True):
    output, _ = model.apply({**variables, "params": params}, BATCH, train=train, mutable=["batch_stats"])
    return jnp.sum(jnp.sin(output.depth_logits)), output


@functools.cache
def gradients(kind, **changes):
    variables = with_loop_as_stack(built()[1]) if kind is StackCtr else built()[1]
    loss = functools.partial(losses, changed(kind, **changes), variables)
    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])


def test_the_scan_is_unrolled_calls_and_its_gradient_their_sum():
    (_, loop), loop_gradient = gradients(LoopCtr)
    (_, stack), stack_gradient = gradients(StackCtr)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-4)
    close(loop.depth_logits, stack.depth_logits)
    each = [stack_gradient[f"stack_{call}"] for call in range(2)]
    assert all(np.abs(leaf).max() > 1e-2 for leaf in jax.tree.leaves(each[0]["block_0"]["attention"]))
    jax.tree.map(close, loop_gradient["loop"], jax.tree.map(jnp.add, *each))
    for part in ("entry", "exit", "head"):
        jax.tree.map(close, loop_gradient[part], stack_gradient[part])


def test_remat_changes_no_value_and_no_gradient():
    (value, _), gradient = gradients(LoopCtr)
    (again, _), repeated = gradients(LoopCtr, remat=True)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-4)
    close(value, again)
    jax.tree.map(close, gradient, repeated)


def states(model, variables, *batches):
    """Of each batch: streams of all tokens at every depth, (B, n + 1, T, N, D), and logits (n + 1, B, M)."""

    def run(variables, batch):
        output, captured = model.apply(
            variables,
            batch,
            all_depths=True,
            capture_intermediates=lambda _, method: method == "states",
            mutable=["intermediates"],
        )
        return captured["intermediates"]["states"][0][0], output.depth_logits

    run = jax.jit(run)
    return [jax.device_get(run(variables, batch)) for batch in batches]


@pytest.mark.parametrize("queries", [0, 2])
def test_no_sequence_state_depends_on_the_candidate(queries):
    model, variables = built(queries)
    ids = random_ids(np.random.default_rng(9), SCHEMA, SCHEMA.candidate, BATCH.candidate_mask.shape)
    other = BATCH.replace(candidate={name: jnp.asarray(value) for name, value in ids.items()})
    (before, _), (after, _) = states(model, variables, BATCH, other)
    length = 5 if queries else 7
    np.testing.assert_array_equal(before[:, :, :length], after[:, :, :length])
    assert (np.abs(before - after)[:, :, length:].max(axis=(0, 2, 3, 4)) > 1e-2).all()


def test_at_the_start_the_model_has_plain_residuals_at_every_depth():
    plain, connected = changed(streams=1), changed()
    start = jax.jit(connected.init)(jax.random.key(0), BATCH)

    def without(tree):
        return {
            name: without(value) if isinstance(value, dict) else value
            for name, value in tree.items()
            if not name.endswith("_connection")
        }

    stripped = {**start, "params": without(start["params"])}
    names = jax.tree.structure(jax.eval_shape(plain.init, jax.random.key(0), BATCH)["params"])
    assert names == jax.tree.structure(stripped["params"])
    [(streams, logits)] = states(connected, start, BATCH)
    [(single, plain_logits)] = states(plain, stripped, BATCH)
    assert streams.shape[3] == 2 and single.shape[3] == 1
    np.testing.assert_allclose(streams, np.broadcast_to(single, streams.shape), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(logits, plain_logits, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("kind", "loops"), [(LoopCtr, 0), (LoopCtr, 3), (StackCtr, 2)])
def test_the_balance_loss_is_alpha_at_perfect_balance_whatever_the_loops(kind, loops):
    # A token chooses all experts: every share is equal, whatever the probabilities.
    model = changed(kind, trained_loops=loops, top_k=4, balance_weight=0.25)
    variables = with_loop_as_stack(built()[1]) if kind is StackCtr else built()[1]
    score = jax.jit(functools.partial(model.apply, all_depths=True))
    np.testing.assert_allclose(score(variables, BATCH).auxiliary["balance"], 0.25, rtol=1e-5)
    nobody = BATCH.replace(candidate_mask=jnp.zeros_like(BATCH.candidate_mask))
    assert score(variables, nobody).auxiliary["balance"] == 0


def test_the_balance_loss_is_of_all_calls_of_a_router_together():
    _, loads = returned_by("states", changed(inferred_loops=2), built()[1], BATCH)
    together, apart = 0.0, 0.0
    for load in loads["block_0"].values():
        share = load.chosen_E / load.tokens[:, None]
        p = load.probability_E / load.tokens[:, None]
        together += 4 * np.sum(share.mean(0) * p.mean(0))
        apart += 4 * np.sum(share * p)
    assert abs(together - apart / 2) > 1e-3
    # The two models share their six other routers and have 8 and 10 in all.
    loop, stack = (gradients(kind)[0][1].auxiliary["balance"] / 1e-2 for kind in (LoopCtr, StackCtr))
    np.testing.assert_allclose(8 * loop - 10 * stack, together - apart, atol=1e-3)


def test_pads_and_their_contents_stay_out_of_balance_and_diagnostics():
    model, variables = built()
    mask = BATCH.candidate_mask.at[:, 1].set(False)
    ids = random_ids(np.random.default_rng(3), SCHEMA, SCHEMA.candidate, mask.shape)
    other = {name: value.at[:, 1].set(ids[name][:, 1]) for name, value in BATCH.candidate.items()}
    batch = BATCH.replace(candidate_mask=mask)
    garbled = garble_pads(batch.replace(candidate=other), SCHEMA)
    score = jax.jit(functools.partial(model.apply, all_depths=True))
    before, after = score(variables, batch), score(variables, garbled)
    assert before.auxiliary["balance"] == after.auxiliary["balance"]
    assert before.diagnostics == after.diagnostics
    assert before.auxiliary["balance"] != all_depths().auxiliary["balance"]


def test_norms_and_loads_are_reported_by_call():
    diagnostics = all_depths().diagnostics
    for sublayer in ("attention", "feed_forward"):
        for call in (1, 2):
            shares = [diagnostics[f"load_{sublayer}_{call}_{expert}"] for expert in range(4)]
            np.testing.assert_allclose(sum(shares), 1.0, rtol=1e-5)
    model, variables = built()
    [(h_BxCxTxNxD, _)] = states(model, variables, BATCH)
    valid = np.concatenate([BATCH.history_mask, np.ones((5, 2 * 7), bool)], axis=1)
    for depth in range(3):
        norms = np.linalg.norm(h_BxCxTxNxD[:, depth][valid], axis=-1)
        np.testing.assert_allclose(diagnostics[f"stream_norm_{depth}"], np.sqrt(np.mean(norms**2)), rtol=1e-4)
    assert len(diagnostics) == 3 + 2 * 2 * 4


def test_the_head_has_one_set_of_statistics_over_all_depths():
    model, variables = built()
    zero = jax.tree.map(jnp.zeros_like, variables["batch_stats"])

    def run(variables, batch):
        return model.apply(
            variables,
            batch,
            train=True,
            capture_intermediates=lambda module, _: module.name == "dense_0",
            mutable=["batch_stats", "intermediates"],
        )[1]

    updates = jax.jit(run)({**variables, "batch_stats": zero}, BATCH)
    (x_BxCMxC,) = updates["intermediates"]["head"]["dense_0"]["__call__"]
    assert x_BxCMxC.shape[:2] == (5, 3 * 2)
    mean = updates["batch_stats"]["head"]["norm_0"]["mean"]
    np.testing.assert_allclose(mean, 0.05 * np.asarray(x_BxCMxC).mean((0, 1)), rtol=1e-3, atol=1e-4)


def test_depth_weights_are_shares():
    np.testing.assert_allclose(all_depths().depth_weights, [1 / 3] * 3)
    tiny = changed(depth_weights=(0.0, 1e-60, 3e-60))  # which float32 does not hold
    np.testing.assert_allclose(
        apply(tiny, built()[1], all_depths=True).depth_weights, [0.0, 0.25, 0.75], rtol=1e-6
    )
    model = changed(depth_weights=(0.0, 0.5, 1.5))
    weights = apply(model, built()[1], all_depths=True).depth_weights
    np.testing.assert_array_equal(weights, [0, 0.25, 0.75])


def test_older_events_reach_the_model_through_the_queries_alone():
    batch = random_batch(4, SCHEMA, candidates=2, lengths=[7, 3, 2, 7, 0], unknown=0.0)
    older = np.arange(7) < np.asarray(batch.visible[:, :1]) - 3
    model, variables = built(queries=2)
    other = batch.replace(
        history={**batch.history, "item": jnp.where(older, 5, batch.history["item"])},
        history_age=jnp.where(older, batch.history_age // 2, batch.history_age),
    )
    (before, logits), (after, other_logits) = states(model, variables, batch, other)
    # At depth 0: slots 0 to 2 are the recent events, slots 3 and 4 the queries.
    np.testing.assert_array_equal(before[:, 0, :3], after[:, 0, :3])
    moved = (before[:, 0, 3:5] != after[:, 0, 3:5]).any((1, 2, 3))
    np.testing.assert_array_equal(moved, older.any(1))
    np.testing.assert_array_equal((logits != other_logits).any((0, 2)), older.any(1))


@pytest.mark.smoke
def test_shared_and_unshared_loops_cost_the_same_and_differ_in_parameters():
    shapes = {}
    for kind in (LoopCtr, StackCtr):
        model = models.build(Config(model=kind(**SMALL)), SCHEMA)
        variables = jax.eval_shape(model.init, jax.random.key(0), BATCH)
        shapes[kind] = count_parameters(model, variables["params"])
    loop, stack = shapes[LoopCtr], shapes[StackCtr]
    assert loop["recurrent"] > 0 and stack["recurrent"] == 0
    assert stack["once"] - loop["once"] == 2 * loop["recurrent"]
    for loops in range(3):
        flops = [kind(**SMALL).flops_at(SCHEMA, 9, loops) for kind in (LoopCtr, StackCtr)]
        assert flops[0] == flops[1]


def test_body_parameters_of_a_grade_are_near_those_of_suan():
    for grade in range(1, len(GRADES)):
        mine, its = (body_parameters(kind(grade=grade)) for kind in (LoopCtr, Suan))
        assert 0.8 < mine / its < 1.2


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("trained_loops", {"trained_loops": -1}),
        ("inferred_loops", {"inferred_loops": 4}),
        ("depth_weights", {"depth_weights": (1.0, 1.0)}),
        ("depth_weights", {"depth_weights": (0.0, 0.0, 0.0, 0.0)}),
        ("depth_weights", {"depth_weights": (math.nan, 1.0, 1.0, 1.0)}),
        ("depth_weights", {"depth_weights": (math.inf, 1.0, 1.0, 1.0)}),
        ("streams", {"streams": 0}),
        ("experts", {"experts": 0}),
        ("top_k", {"top_k": 5}),
        ("balance_weight", {"balance_weight": -0.5}),
        ("balance_weight", {"balance_weight": math.inf}),
        ("expansion", {"expansion": 0}),
        ("queries", {"queries": -1}),
        ("recent", {"recent": 0}),
        ("heads", {"heads": 5}),
    ],
)
def test_bad_settings_are_named(field, changes):
    value = str(changes[field]).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(UserError, match=rf"config\.model\.{field} is {value}, expected"):
        models.build(Config(model=LoopCtr(**changes)), SCHEMA)


def test_a_depth_that_was_not_trained_is_refused():
    model, variables = built()
    with pytest.raises(UserError, match="loops is 3, expected 0 to 2"):
        model.apply(variables, BATCH, loops=3)
