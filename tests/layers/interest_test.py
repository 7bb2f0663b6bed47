import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import meta

from suan_jax.layers.interest import TargetInterest


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.smoke
def test_scores_are_the_mlp_of_the_four_terms_side_by_side():
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 3, 4)).astype(np.float32), rng.normal(size=(2, 5, 4)).astype(np.float32)
    mask = np.ones((2, 3, 5), bool)
    interest = TargetInterest((6, 5), 0.9)
    fresh = meta.unbox(interest.init(jax.random.key(0), q, k, mask, False, method="scores"))
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
    scores = interest.apply(variables, q, k, mask, False, method="scores")
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("softmax", [False, True])
def test_the_interest_is_the_weighted_sum_of_the_events_that_the_mask_allows(softmax):
    rng = np.random.default_rng(1)
    q, k, e = (jnp.asarray(rng.normal(size=(2, n, 4)), jnp.float32) for n in (3, 5, 5))
    mask = jnp.asarray(rng.random((2, 3, 5)) < 0.6).at[0, 1].set(False)
    interest = TargetInterest((6,), 0.9, softmax)
    variables = meta.unbox(interest.init(jax.random.key(0), q, k, e, mask, False))
    scores = np.asarray(interest.apply(variables, q, k, mask, False, method="scores"), np.float64)
    weight = np.where(mask, np.exp(scores) if softmax else scores, 0.0)
    if softmax:
        weight /= np.maximum(weight.sum(-1, keepdims=True), 1e-30)
    interests = interest.apply(variables, q, k, e, mask, False)
    np.testing.assert_allclose(interests, weight @ np.asarray(e, np.float64), rtol=1e-5, atol=1e-6)
    assert (interests[0, 1] == 0).all() and (interests[0, 0] != 0).any()
