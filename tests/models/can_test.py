import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax import models
from suan_jax.config import Config, OptimizerConfig
from suan_jax.errors import UserError
from suan_jax.layers.head import head_macs
from suan_jax.models.can import Can, co_action, pair_names
from suan_jax.training.summary import count_parameters
from tests.models.intermediates import captured, gathered
from tests.random_batch import random_batch, random_schema

SCHEMA = random_schema()


@pytest.mark.smoke
def test_the_36_numbers_are_those_of_each_candidate_s_own_layers():
    rng = np.random.default_rng(0)
    weights, h = rng.normal(size=(2, 3, 160)), rng.normal(size=(2, 5, 16))
    mask = rng.random((2, 3, 5)) < 0.5
    mask[0, 1] = False
    expected = np.zeros((2, 3, 36))
    for b, m, event in np.argwhere(mask):
        w1, w2 = weights[b, m, :128].reshape(16, 8), weights[b, m, 128:].reshape(8, 4)
        out = []
        for order in (1, 2, 3):
            z1 = np.tanh(h[b, event] ** order @ w1)
            out += [*z1, *(z1 @ w2)]
        expected[b, m] += out
    result = co_action(jnp.asarray(weights, jnp.float32), jnp.asarray(h, jnp.float32), mask)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4)
    assert (result[0, 1] == 0).all()


def head_input(config, schema, batch):
    """What the head reads first, and the model's rows."""
    optimizer = OptimizerConfig(embedding_init=0.7)
    model = models.build(Config(model=config, optimizer=optimizer), schema)
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    variables["tables"] = {
        name: 50 * table if name.startswith("co_action") else table
        for name, table in variables["tables"].items()
    }
    kernel = variables["params"]["head"]["dense_0"]["kernel"]
    variables["params"]["head"]["dense_0"]["kernel"] = jnp.eye(*kernel.shape)
    rows = gathered(model, variables, batch)
    inside = captured(lambda module, _: module.name == "dense_0", model, variables, batch, rows)
    return inside["head"]["dense_0"]["__call__"][0], rows


@pytest.mark.parametrize("base", ["din", "dnn"])
def test_the_head_reads_the_co_action_of_item_and_category_beside_the_interest(base):
    batch = random_batch(1, SCHEMA, candidates=2, across_time=True)
    state, rows = head_input(Can(head=(104,), base=base), SCHEMA, batch)
    visible = np.arange(7) < np.asarray(batch.visible)[:, :, None]
    for index, name in enumerate(("item", "category")):
        own = rows["candidate"][f"co_action_{name}"], rows["history"][f"co_action_{name}"]
        expected = co_action(*own, visible & np.asarray(batch.history_mask)[:, None])
        np.testing.assert_allclose(state[:, :, 36 * index : 36 * index + 36], expected, atol=1e-5)
        assert np.std(expected) > 1e-3
    after = state[:, :, 72 : 72 + 8]
    profile = np.broadcast_to(rows["profile"]["city"][:, None], after.shape)
    assert np.allclose(after, profile) == (base == "dnn")


def test_without_a_category_items_act_alone():
    schema = random_schema()
    schema = type(schema)(**{**vars(schema), "category": None})
    names = {lookup.table for lookup in Can().lookups(schema)}
    assert pair_names(schema) == ("item",)
    assert {name for name in names if name.startswith("co_action")} == {
        "co_action_item_history",
        "co_action_item_candidate",
    }


def test_its_tables_start_small_and_count_as_embeddings():
    optimizer = OptimizerConfig(embedding_init=0.7)
    model = models.build(Config(model=Can(head=(8,)), optimizer=optimizer), random_schema(item_rows=4000))
    variables = jax.jit(model.init)(jax.random.key(0), random_batch(0, SCHEMA))
    tables = variables["tables"]
    assert tables["co_action_item_candidate"].shape[1:] == (160,)
    assert tables["co_action_item_history"].shape[1:] == (16,)
    for name, scale in {
        "item": 0.7,
        "co_action_item_history": 0.01,
        "co_action_item_candidate": 0.01,
    }.items():
        assert np.std(tables[name][2:]) == pytest.approx(scale, rel=0.05), name
        assert (tables[name][:2] == 0).all()
    assert not any("co_action" in name for name in variables["params"])
    plain = models.build(Config(model=models.din.Din(head=(8,))), model.schema)
    more = (
        count_parameters(model, variables["params"])["embedding"]
        - count_parameters(plain, variables["params"])["embedding"]
    )
    assert more == (4000 + 12) * (160 + 16)


def equations_of_co_action(length):
    jaxpr = jax.make_jaxpr(co_action)(
        jnp.zeros((2, 3, 160)), jnp.zeros((2, length, 16)), jnp.zeros((2, 3, length), bool)
    )
    return jax.tree.leaves([inlined(equation) for equation in jaxpr.eqns])


def inlined(equation):
    inner = equation.params.get("jaxpr")
    return [inlined(e) for e in inner.eqns] if inner is not None else equation


def test_no_array_is_larger_than_the_first_layers_results():
    shapes = [variable.aval.shape for equation in equations_of_co_action(50) for variable in equation.outvars]
    assert max(np.prod(shape) for shape in shapes) == 2 * 3 * 50 * 3 * 8


def test_operations_of_the_co_action_are_those_of_its_products():
    config = Can(head=(32,), base="dnn")
    counted = 0
    for equation in equations_of_co_action(40):
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inner = np.prod([equation.invars[0].aval.shape[axis] for axis in contracted])
            counted += (
                2 * inner * np.prod(equation.outvars[0].aval.shape) / 6
            )  # of two rows of three candidates
    head = 2 * head_macs(SCHEMA, 2 * 36, 8, (32,))
    assert config.flops_per_example(SCHEMA, 40) == 2 * counted + head


@pytest.mark.parametrize(("field", "value"), [("grade", 1), ("base", "bst"), ("attention_hidden", ())])
def test_bad_settings_are_named(field, value):
    with pytest.raises(UserError, match=rf"config\.model\.{field} is "):
        models.build(Config(model=Can(**{field: value})), SCHEMA)
