"""What holds for every model. A new model joins by a line of `CASES`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax import models
from suan_jax.layers import embedding
from suan_jax.models.bst import Bst
from suan_jax.models.can import Can
from suan_jax.models.din import Din
from suan_jax.models.eta import Eta
from suan_jax.models.hstu import Hstu
from suan_jax.models.light_suan import LightSuan
from suan_jax.models.loopctr import LoopCtr, StackCtr
from suan_jax.models.sim import HardSim, SoftSim
from suan_jax.models.suan import Suan
from suan_jax.models.twin import Twin
from tests.models.random_model import model_of, random_model
from tests.random_batch import (
    garble_pads,
    one_candidate,
    pad_history,
    random_batch,
    random_ids,
    random_schema,
    rows_of,
    single_example,
)

# The default of each model under its own name; variants under others.
CASES = {
    "din": Din(head=(8,)),
    "din_softmax": Din(head=(8,), softmax=True),
    "eta": Eta(head=(8,)),
    "eta_few": Eta(head=(8,), k=3, recent=2),
    "hard_sim": HardSim(head=(8,)),
    "hard_sim_few": HardSim(head=(8,), k=3, recent=2),
    "soft_sim": SoftSim(head=(8,)),
    "soft_sim_few": SoftSim(head=(8,), k=3, recent=2),
    "twin": Twin(head=(8,)),
    "twin_few": Twin(head=(8,), k=3),
    "bst": Bst(head=(8,)),
    "bst_flatten": Bst(head=(8,), layers=2, pool="flatten"),
    "can": Can(head=(8,)),
    "can_dnn": Can(head=(8,), base="dnn"),
    "hstu": Hstu(head=(8,), layers=2),
    "hstu_no_position": Hstu(head=(8,), layers=2, absolute_position=False),
    "light_suan": LightSuan(head=(8,), window=2, dilation=2),
    "light_suan_causal": LightSuan(
        head=(8,), window=3, dilation=2, pool="causal", absolute_position=False, remat=True
    ),
    "loopctr": LoopCtr(head=(8,), width=16, trained_loops=2, inferred_loops=2),
    "loopctr_plain": LoopCtr(
        head=(8,), width=16, trained_loops=1, inferred_loops=1, streams=1, experts=1, remat=True
    ),
    "loopctr_queries": LoopCtr(
        head=(8,), width=16, trained_loops=1, inferred_loops=1, streams=3, top_k=2, queries=2, recent=3
    ),
    "stackctr": StackCtr(head=(8,), width=16, trained_loops=2, inferred_loops=2),
    "suan": Suan(head=(8,)),
    "suan_all": Suan(head=(8,), pool="all", width=24, batch_norm_logit=True),
    "suan_causal": Suan(head=(8,), pool="causal", absolute_position=False),
}
# Properties that a case has a reason not to have: case, then property, then reason. The opposite is tested.
EXCEPTIONS = {
    "hard_sim_few": {"operations grow": "its search multiplies nothing, and the rest sees k + recent events"},
}
# To these a history is a set of events, each with its time: BST's positions are time gaps. `_few` keep the
# last two events apart.
ORDERLESS = {"din", "din_softmax", "can", "can_dnn", "eta", "hard_sim", "soft_sim", "bst"}
# Dtypes are compared at equal choices: where a router's may differ, every expert is chosen.
ALL_CHOSEN = {"loopctr": {"top_k": 4}, "stackctr": {"top_k": 4}}
SCHEMA = random_schema()
MAX_LEN = 12
# Compiling is nearly all of the cost here: most tests share one shape.
random_batch = functools.partial(random_batch, schema=SCHEMA, rows=5, length=7, candidates=3)

each_model = pytest.mark.parametrize("case", CASES)
each_default = pytest.mark.parametrize("case", [case for case in CASES if CASES[case].name == case])
each_mode = pytest.mark.parametrize("train", [False, True])


@functools.cache
def build(case):
    """A model with variables far from their initial values, so that every part of it shows in the logits."""
    return random_model(CASES[case], MAX_LEN, SCHEMA, noise=0.15)


@functools.cache
def compiled(case, train):
    """The model jitted: forward, and with gradients of its losses and of a bounded function of its logits."""
    model, _ = build(case)

    def apply(variables, rows, batch):
        return model.apply_rows(variables, rows, batch, train=train, mutable=["batch_stats"])

    def gather(variables, batch):
        return embedding.gather(model.lookups, variables["tables"], batch)

    def forward(variables, batch):
        output, updates = apply(variables, gather(variables, batch), batch)
        return output.logits, updates

    def gradients(variables, batch):
        def loss(params, rows):
            output, updates = apply({**variables, "params": params}, rows, batch)
            total = jnp.sum(jnp.where(batch.candidate_mask, jnp.sin(output.logits), 0.0))
            return total + sum(output.auxiliary.values()), (output.logits, updates)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], gather(variables, batch))

    return jax.jit(forward), jax.jit(gradients)


def forward(case, batch, train=False):
    """Logits and updated statistics, at any shape."""
    return compiled(case, train)[0](build(case)[1], batch)


def run(case, batch, train=False):
    """Gradients with respect to parameters and rows, logits, updated statistics, at the shared shape."""
    (params, rows), (logits, updates) = compiled(case, train)[1](build(case)[1], batch)
    return params, rows, logits, updates


def logits(case, batch, train=False):
    return np.asarray(run(case, batch, train)[2])


def assert_finite(tree):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.smoke
def test_every_registered_model_is_here():
    assert {config.name for config in CASES.values()} == set(models.registered())


@each_model
@each_mode
def test_an_empty_history_is_finite(case, train):
    batch = random_batch(1, lengths=np.zeros(5, int))
    result = run(case, batch, train)
    assert result[2].dtype == np.float32
    assert_finite(result)


@each_model
@each_mode
def test_a_batch_of_pads_alone_is_finite_and_moves_no_statistic(case, train):
    batch = random_batch(1, lengths=np.zeros(5, int))
    batch = batch.replace(candidate_mask=jnp.zeros_like(batch.candidate_mask))
    result = run(case, batch, train)
    assert_finite(result)
    jax.tree.map(np.testing.assert_array_equal, result[3]["batch_stats"], build(case)[1]["batch_stats"])


@each_model
def test_a_batch_of_one_scores_as_in_a_larger_batch(case):
    batch = random_batch(2)
    one = pad_history(rows_of(batch, slice(2, 3)), MAX_LEN)
    np.testing.assert_allclose(forward(case, one)[0], logits(case, batch)[2:3], atol=1e-5)


@each_model
def test_a_batch_of_one_example_trains(case):
    batch = random_batch(2, lengths=np.full(5, 7))
    only = jnp.zeros_like(batch.candidate_mask).at[2, 0].set(True)
    assert_finite(run(case, batch.replace(candidate_mask=only), train=True))


@each_model
@each_mode
def test_pad_contents_change_nothing(case, train):
    batch = random_batch(3)
    before, after = (run(case, b, train) for b in (batch, garble_pads(batch, SCHEMA)))
    jax.tree.map(np.testing.assert_array_equal, before[2:], after[2:])
    jax.tree.map(np.testing.assert_array_equal, before[0], after[0])


@each_model
@each_mode
def test_the_padded_length_changes_nothing(case, train):
    batch = random_batch(4)
    padded = garble_pads(pad_history(batch, MAX_LEN), SCHEMA)
    # Statistics are of the whole batch; without them each row may be a batch, of the shape of the test above.
    parts = [padded] if train else [rows_of(padded, slice(row, row + 1)) for row in range(5)]
    after, updates = zip(*(forward(case, part, train) for part in parts), strict=True)
    after = np.concatenate(after), updates[0]
    close = functools.partial(np.testing.assert_allclose, atol=2e-5)
    jax.tree.map(close, run(case, batch, train)[2:], after)


@each_model
def test_candidates_that_are_pads_stay_out_of_the_statistics(case):
    batch = random_batch(5)
    mask = batch.candidate_mask.at[:, 1].set(False)
    batch = batch.replace(candidate_mask=mask)
    ids = random_ids(np.random.default_rng(9), SCHEMA, SCHEMA.candidate, mask.shape)
    other = {name: value.at[:, 1].set(ids[name][:, 1]) for name, value in batch.candidate.items()}
    garbled = batch.replace(candidate=other, dense=jnp.where(mask[:, :, None], batch.dense, 99.0))
    before, after = (run(case, b, train=True) for b in (batch, garbled))
    jax.tree.map(np.testing.assert_array_equal, before[3], after[3])
    np.testing.assert_array_equal(np.asarray(before[2])[mask], np.asarray(after[2])[mask])


@each_model
@each_mode
def test_no_future(case, train):
    batch = random_batch(6, lengths=np.full(5, 7), across_time=True)
    middle = np.repeat(batch.visible[:, 1:2], 3, axis=1), np.repeat(batch.candidate_age[:, 1:2], 3, axis=1)
    batch = batch.replace(visible=jnp.asarray(middle[0]), candidate_age=jnp.asarray(middle[1]))
    future = np.arange(7) >= middle[0][:, :1]
    assert future.any() and not future.all()
    _, rows, before, updates = run(case, batch, train)
    for name, gradient in rows["history"].items():
        assert (np.asarray(gradient)[future] == 0).all(), name
        assert (np.asarray(gradient)[~future] != 0).any(), name
    later = batch.replace(
        history_age=jnp.where(future, batch.history_age // 3, batch.history_age),
        history_timed=jnp.where(future, ~batch.history_timed, batch.history_timed),
    )
    jax.tree.map(np.testing.assert_array_equal, (before, updates), run(case, later, train)[2:])


@each_model
def test_candidates_of_one_request_score_as_they_do_alone(case):
    batch = random_batch(7)
    alone = [forward(case, one_candidate(batch, index))[0] for index in range(3)]
    packed = logits(case, batch)
    np.testing.assert_allclose(packed, np.concatenate(alone, axis=1), atol=1e-5)
    assert np.std(packed, axis=1).min() > 1e-3  # the candidate does matter


@each_model
def test_another_candidate_changes_nothing(case):
    batch = random_batch(8)
    ids = random_ids(np.random.default_rng(9), SCHEMA, SCHEMA.candidate, batch.candidate_mask.shape)
    other = {name: value.at[:, 1].set(ids[name][:, 1]) for name, value in batch.candidate.items()}
    before, after = logits(case, batch), logits(case, batch.replace(candidate=other))
    np.testing.assert_array_equal(before[:, ::2], after[:, ::2])
    assert (before[:, 1] != after[:, 1]).all()


@each_model
def test_the_order_of_events_counts_where_it_should_and_nowhere_else(case):
    batch, rng = random_batch(13, lengths=np.array([7, 7, 6, 5, 4])), np.random.default_rng(14)
    keys = np.where(batch.history_mask, rng.random((5, 7)), 1.0)
    order = np.argsort(keys, axis=1)  # pads stay last
    rows = np.arange(5)[:, None]

    def turned(x):
        return jnp.asarray(np.asarray(x)[rows, order])

    other = batch.replace(
        history={name: turned(ids) for name, ids in batch.history.items()},
        history_age=turned(batch.history_age),
        history_timed=turned(batch.history_timed),
    )
    before, after = logits(case, batch), logits(case, other)
    if case in ORDERLESS:
        np.testing.assert_allclose(after, before, atol=1e-5)
    else:
        assert (np.abs(after - before) > 1e-4).any()


@each_model
def test_packing_across_time_is_exact_or_refused(case):
    refusal = build(case)[0].config.across_time_refusal()
    if refusal:
        assert "\n" not in refusal
        return
    batch = random_batch(9, across_time=True, lengths=[7, 7, 5, 3, 0])
    assert (np.diff(np.asarray(batch.visible), axis=1) > 0).any()
    alone = [forward(case, single_example(batch, index))[0] for index in range(3)]
    np.testing.assert_allclose(logits(case, batch), np.concatenate(alone, axis=1), atol=1e-5)


@each_model
def test_an_unknown_time_is_never_read(case):
    batch = random_batch(10, unknown=0.5)
    unknown = batch.history_mask & ~batch.history_timed
    assert unknown.any()
    moved = batch.replace(history_age=jnp.where(unknown, batch.history_age // 7, batch.history_age))
    np.testing.assert_array_equal(logits(case, batch), logits(case, moved))


@each_default
def test_jit_changes_nothing(case):
    batch = random_batch(11)
    model, variables = build(case)
    np.testing.assert_allclose(
        model.apply(variables, batch).logits, logits(case, batch), rtol=1e-5, atol=1e-5
    )


@each_default
def test_bfloat16_is_close_to_float32_packed_and_one_by_one(case):
    batch, variables = random_batch(12), build(case)[1]
    config = dataclasses.replace(CASES[case], **ALL_CHOSEN.get(case, {}))
    apply = jax.jit(model_of(dataclasses.replace(config, dtype="bfloat16"), MAX_LEN, SCHEMA).apply)
    low = apply(variables, batch).logits
    if case in ALL_CHOSEN:
        high = jax.jit(model_of(config, MAX_LEN, SCHEMA).apply)(variables, batch).logits
    else:
        high = logits(case, batch)
    assert low.dtype == jnp.float32
    assert 1e-4 < np.sqrt(np.mean((low - high) ** 2)) / np.std(high) < 0.1
    # One by one, products may be rounded elsewhere: to bfloat16's own error.
    alone = [apply(variables, one_candidate(batch, index)).logits for index in range(3)]
    np.testing.assert_allclose(low, np.concatenate(alone, axis=1), rtol=0, atol=0.1 * np.std(high))


@each_model
def test_every_parameter_has_a_gradient(case):
    params, rows, *_ = run(case, random_batch(13), train=True)
    leaves = jax.tree_util.tree_leaves_with_path((params, rows))
    assert [jax.tree_util.keystr(path) for path, leaf in leaves if not np.asarray(leaf).any()] == []


@pytest.mark.smoke
@each_model
def test_counted_operations_grow_with_length_and_useful_ones_are_fewer(case):
    config = CASES[case]
    full = config.flops_per_example(SCHEMA, 50)
    if "operations grow" in EXCEPTIONS.get(case, {}):
        assert full == config.flops_per_example(SCHEMA, 10) == config.useful_flops(SCHEMA, np.array([10, 20]))
        return
    assert full > config.flops_per_example(SCHEMA, 10) > 0
    useful = config.useful_flops(SCHEMA, np.array([10, 20]))
    assert 0 < useful < full
    assert useful < config.useful_flops(SCHEMA, np.array([10, 50])) <= full
