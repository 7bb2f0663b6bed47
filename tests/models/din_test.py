import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import meta

from suan_jax import models
from suan_jax.config import Config
from suan_jax.errors import UserError
from suan_jax.models.din import Din, TargetScore
from tests.compiling import quick_jit
from tests.random_batch import random_batch, random_schema


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.smoke
def test_scores_are_the_mlp_of_the_four_terms_side_by_side():
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 3, 4)).astype(np.float32), rng.normal(size=(2, 5, 4)).astype(np.float32)
    mask = np.ones((2, 3, 5), bool)
    score = TargetScore((6, 5), 0.9, jnp.float32)
    fresh = meta.unbox(score.init(jax.random.key(0), q, k, mask, False))
    variables = jax.tree.map(lambda x: x + 0.3, fresh)
    params, stats = variables["params"], variables["batch_stats"]

    def dice(x, name):
        p = sigmoid((x - stats[name]["norm"]["mean"]) / np.sqrt(stats[name]["norm"]["var"]))
        return p * x + params[name]["alpha"] * (1 - p) * x

    q_pairs = np.broadcast_to(q[:, :, None], (2, 3, 5, 4))
    k_pairs = np.broadcast_to(k[:, None], (2, 3, 5, 4))
    x = np.concatenate([q_pairs, k_pairs, q_pairs - k_pairs, q_pairs * k_pairs], axis=-1)
    x = dice(x @ params["kernel"].reshape(16, 6) + params["bias"], "dice_0")
    x = dice(x @ params["dense_0"]["kernel"] + params["dense_0"]["bias"], "dice_1")
    expected = (x @ params["dense_1"]["kernel"] + params["dense_1"]["bias"])[..., 0]
    np.testing.assert_allclose(score.apply(variables, q, k, mask, False), expected, rtol=1e-4, atol=1e-4)


def test_one_grade_only():
    with pytest.raises(UserError, match=r"config\.model\.grade is 1"):
        models.build(Config(model=Din(grade=1)), random_schema())


def test_statistics_of_dice_come_from_visible_pairs_alone():
    schema = random_schema()
    model = models.build(Config(model=Din(head=(8,))), schema)
    batch = random_batch(0, schema, lengths=[7, 7, 7, 0, 0])
    variables = quick_jit(model.init)(jax.random.key(0), batch)
    # The rows of the empty histories are gone: their pairs were pads, so Dice's statistics stay.
    fewer = jax.tree.map(lambda x: x[:3], batch)
    stats = [
        model.apply(variables, b, train=True, mutable=["batch_stats"])[1]["batch_stats"]["attention"]
        for b in (batch, fewer)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9), *stats)


def test_operations_are_those_that_run():
    schema = random_schema()
    config = Din(head=(32,), embedding_width=64, attention_hidden=(256, 128))
    model = models.build(Config(model=config), schema)
    batch = random_batch(0, schema, rows=4, length=40)
    variables = quick_jit(model.init)(jax.random.key(0), batch)
    cost = quick_jit(model.apply).lower(variables, batch).compile().cost_analysis()["flops"] / 4
    assert config.flops_per_example(schema, 40) == pytest.approx(cost, rel=0.05)
