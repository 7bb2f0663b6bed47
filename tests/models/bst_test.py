import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax import models
from suan_jax.config import Config
from suan_jax.errors import UserError
from suan_jax.layers import embedding, time_buckets
from suan_jax.models.bst import GRADES, Bst, TransformerBlock, flatten_states
from suan_jax.models.size import Size
from suan_jax.models.suan import Suan
from tests.models.intermediates import tokens_and_states
from tests.models.random_model import body_parameters, layer_norm, random_model
from tests.random_batch import garble_pads, pad_history, random_batch, random_schema, single_example

SCHEMA = random_schema()


def reference_block(x, p):
    """One block on one row's valid tokens, head by head, in NumPy."""
    attended = np.zeros_like(x)
    for h in range(p["attention"]["query"].shape[1]):
        q, k, v = (x @ p["attention"][name][:, h] for name in ("query", "key", "value"))
        weight = np.exp(q @ k.T / np.sqrt(q.shape[1]))
        attended += weight / weight.sum(1, keepdims=True) @ v @ p["attention"]["out"][h]
    s = layer_norm(x + attended, p["norm_1"])
    hidden = s @ p["hidden"]["kernel"] + p["hidden"]["bias"]
    hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
    return layer_norm(s + hidden @ p["out"]["kernel"] + p["out"]["bias"], p["norm_2"])


@pytest.mark.parametrize("length", [7, 9])
def test_the_blocks_are_their_equations_whatever_the_padding(length):
    model, variables = random_model(Bst(head=(8,), layers=2), max_len=9)
    batch = random_batch(1, SCHEMA, rows=3, candidates=2, lengths=[7, 4, 0], across_time=True)
    padded = garble_pads(pad_history(batch, length), SCHEMA)
    tokens, last = tokens_and_states(model, variables, padded)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"]["blocks"])
    for row, candidate in np.ndindex(3, 2):
        one = 2 * row + candidate
        keep = np.array([*range(batch.visible[row, candidate]), length])
        x = np.asarray(tokens[one][keep], np.float64)
        for layer in range(2):
            x = reference_block(x, jax.tree.map(lambda leaf: leaf[layer], params))  # noqa: B023
        np.testing.assert_allclose(last[one][keep], x, rtol=1e-3, atol=1e-3)


def test_a_token_is_its_features_beside_its_time_gap_to_the_candidate():
    model, variables = random_model(Bst(head=(8,)))
    batch = random_batch(2, SCHEMA, rows=3, candidates=2, lengths=[7, 4, 1], across_time=True, unknown=0.4)
    tokens, _ = tokens_and_states(model, variables, batch)
    table = variables["params"]["tokens"]["gap_table"]
    item = embedding.gather(model.lookups, variables["tables"], batch)["history"]["item"]
    buckets = set()
    for row, candidate in np.ndindex(3, 2):
        token = tokens[2 * row + candidate]
        for slot in range(batch.visible[row, candidate]):
            gap = int(batch.history_age[row, slot]) - int(batch.candidate_age[row, candidate])
            known = batch.history_timed[row, slot]
            bucket = int(time_buckets.host_bucket(np.int64(gap))) if known else time_buckets.UNKNOWN
            buckets.add(bucket)
            np.testing.assert_array_equal(token[slot, -8:], table[bucket])
            np.testing.assert_array_equal(token[slot, :8], item[row, slot])
        np.testing.assert_array_equal(token[-1, -8:], table[0])
    assert len(buckets) > 4 and time_buckets.UNKNOWN in buckets


@pytest.mark.smoke
def test_flattened_states_are_counted_back_from_the_candidate():
    batch = random_batch(3, SCHEMA, rows=3, length=4, lengths=[4, 2, 0])
    batch = batch.replace(visible=jnp.array([[3], [2], [0]]))
    states = 1.0 + jnp.arange(15.0).reshape(3, 5, 1)  # 1 to 5, 6 to 10, 11 to 15; the candidate's last
    expected = [[5, 3, 2, 1, 0, 0], [10, 7, 6, 0, 0, 0], [15, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(flatten_states(states, batch, 6), expected)
    wider = jnp.concatenate([states[:, :4], jnp.full((3, 1, 1), 99.0), states[:, 4:]], axis=1)
    np.testing.assert_array_equal(flatten_states(wider, pad_history(batch, 5), 6), expected)


@pytest.mark.parametrize("pool", ["target", "flatten"])
def test_repeated_histories_are_exact_across_time_too(pool):
    model, variables = random_model(Bst(head=(8,), pool=pool))
    batch = random_batch(4, SCHEMA, candidates=3, across_time=True)
    apply = jax.jit(model.apply)
    alone = [apply(variables, single_example(batch, index)).logits for index in range(3)]
    packed = apply(variables, batch).logits
    np.testing.assert_allclose(packed, np.concatenate(alone, axis=1), atol=1e-5)
    assert "depend on the candidate" in model.config.across_time_refusal()


def test_the_head_of_flatten_reads_every_state():
    model, variables = random_model(Bst(head=(8,), pool="flatten"), max_len=7)
    width = model.module.size.width
    rows = variables["params"]["head"]["dense_0"]["kernel"].shape[0]
    target, other = random_model(Bst(head=(8,)), max_len=7)
    assert rows - other["params"]["head"]["dense_0"]["kernel"].shape[0] == 7 * width
    assert target.module.size.width == width == 5 * 8


def test_the_scan_is_its_blocks_one_after_another_with_and_without_remat():
    batch = random_batch(5, SCHEMA, lengths=np.full(5, 7))
    results = []
    for remat in (False, True):
        model, variables = random_model(Bst(head=(8,), layers=3, remat=remat))

        def loss(params, model=model, variables=variables):
            return jnp.sum(jnp.sin(model.apply({**variables, "params": params}, batch).logits))

        results.append(jax.jit(jax.value_and_grad(loss))(variables["params"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results)
    x, scanned = tokens_and_states(model, variables, batch)
    block = TransformerBlock(model.module.size.heads, jnp.float32)
    for index in range(3):
        own = jax.tree.map(lambda leaf: leaf[index], variables["params"]["blocks"])  # noqa: B023
        x, _ = block.apply({"params": own}, x, jnp.ones((5, 1, 8), bool))
    np.testing.assert_allclose(x, scanned, atol=1e-4)


def test_grades_have_the_body_of_suan_s():
    for grade in range(1, len(GRADES)):
        assert body_parameters(Bst(grade=grade)) == pytest.approx(
            body_parameters(Suan(grade=grade)), rel=1 / 6
        ), grade
    assert Bst().size(SCHEMA) == Size(1, 40, 8)


def test_a_pool_of_another_name_is_refused():
    with pytest.raises(UserError, match=r"config\.model\.pool is 'mean'"):
        models.build(Config(model=Bst(pool="mean")), SCHEMA)
