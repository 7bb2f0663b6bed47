import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from suan_jax.config import Config
from suan_jax.models import build
from suan_jax.models.din import Din
from suan_jax.models.model import Output
from suan_jax.training.optimizer import dense_optimizer, learning_rate_factor, pace
from suan_jax.training.state import init_state
from suan_jax.training.step import loss_terms, train_step
from tests.random_batch import random_batch, random_schema

_SCHEMA = random_schema(item_rows=600)


@pytest.fixture(scope="module")
def run():
    """A model, its optimizer, a state and a step over a batch of 6."""
    config = Config(model=Din(head=(8,), embedding_width=4))
    config.data.max_len = 7
    model = build(config, _SCHEMA)
    batch = random_batch(0, _SCHEMA, rows=6)
    factor = learning_rate_factor(config.optimizer)
    optimizer = dense_optimizer(config.optimizer, model.logical_axes(batch)["params"])
    state = init_state(jax.random.key(0), model, optimizer, 0.01, batch)
    own_pace = pace(config.optimizer, 10)
    step = jax.jit(lambda state, batch: train_step(model, optimizer, factor, state, batch, own_pace))
    return model, config, state, batch, step


def _summed_loss(model, state, batch):
    """The gradient with respect to whole tables, as no step computes it."""

    def loss(tables):
        variables = {**state.dense_variables(), "tables": tables}
        rngs = {"dropout": jax.random.fold_in(state.key, state.step)}
        output, _ = model.apply(variables, batch, train=True, rngs=rngs, mutable=["batch_stats"])
        return jnp.sum(optax.sigmoid_binary_cross_entropy(output.logits, batch.label))

    return jax.jit(jax.grad(loss))(state.tables)


def test_tables_follow_adagrad_on_the_summed_loss(run):
    model, config, state, batch, step = run
    after, metrics = step(state, batch)
    rate = config.optimizer.embedding_learning_rate
    for name, gradient in _summed_loss(model, state, batch).items():
        accumulator = state.accumulators[name] + jnp.mean(gradient**2, -1)
        table = state.tables[name] - rate * gradient / jnp.sqrt(accumulator)[:, None]
        np.testing.assert_allclose(after.accumulators[name], accumulator, rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(after.tables[name], table, rtol=1e-3, atol=2e-6, err_msg=name)
    assert int(after.step) == 1
    assert metrics.keys() == {"loss", "log_loss", "learning_rate", "grad_norm", "examples"}
    assert metrics["examples"] == 6


def test_pads_are_never_trained(run):
    _, _, state, batch, step = run
    after, _ = step(state, batch)
    for name, table in after.tables.items():
        np.testing.assert_array_equal(table[0], 0.0)
        assert after.accumulators[name][0] == state.accumulators[name][0]


def test_masked_candidates_add_nothing_to_the_loss():
    batch = random_batch(1, _SCHEMA, rows=5, candidates=3)
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    mask = jnp.arange(15).reshape(5, 3) % 4 != 0
    batch = batch.replace(candidate_mask=mask)
    terms, _ = loss_terms(Output(logits, auxiliary={"extra": jnp.float32(0.5)}), batch)
    expected = np.mean(optax.sigmoid_binary_cross_entropy(logits, batch.label)[mask])
    np.testing.assert_allclose(terms["log_loss"], expected, rtol=1e-6)
    assert terms["extra"] == 0.5
    garbled = jnp.where(mask, logits, jnp.nan)
    np.testing.assert_allclose(loss_terms(Output(garbled), batch)[0]["log_loss"], expected, rtol=1e-6)
    empty = batch.replace(candidate_mask=jnp.zeros_like(mask))
    assert loss_terms(Output(logits), empty)[0]["log_loss"] == 0.0


def test_every_depth_is_supervised_by_its_weight_and_reported():
    batch = random_batch(1, _SCHEMA, rows=5, candidates=3)
    batch = batch.replace(candidate_mask=jnp.arange(15).reshape(5, 3) % 4 != 0)
    depths = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 3)), jnp.float32)
    weights = jnp.array([0.5, 0.2, 0.3])
    extra, norm = {"balance": jnp.float32(0.25)}, {"norm_0": jnp.float32(7)}
    terms, beside = loss_terms(Output(depths[1], depths, weights, extra, norm), batch)
    alone = [float(loss_terms(Output(logits), batch)[0]["log_loss"]) for logits in depths]
    assert terms.keys() == {"log_loss", "balance"}
    np.testing.assert_allclose(terms["log_loss"], np.dot(weights, alone), rtol=1e-6)
    np.testing.assert_allclose([beside[f"log_loss_depth_{depth}"] for depth in range(3)], alone, rtol=1e-6)
    assert beside["norm_0"] == 7 and len(beside) == 4

    def total(depths):
        return sum(loss_terms(Output(depths[1], depths, weights), batch)[0].values())

    # A logit moves the loss by its own depth's weight, once, whatever depth the headline is of.
    slope = jax.grad(total)(depths)
    expected = weights[:, None, None] * (jax.nn.sigmoid(depths) - batch.label) * batch.candidate_mask
    np.testing.assert_allclose(slope, expected / batch.candidate_mask.sum(), atol=1e-7)
