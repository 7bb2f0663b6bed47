import jax
import jax.numpy as jnp
import numpy as np

from suan_jax.layers.dice import Dice
from suan_jax.layers.norms import BatchNorm, LayerNorm, RMSNorm


def test_rms_norm_is_its_formula_and_has_a_gradient_at_zero():
    x = jnp.array([[3.0, -4.0], [0.0, 0.0], [1e-7, 1e-7]])

    def apply(x):
        return RMSNorm().apply({"params": {"scale": jnp.array([1.0, 2.0])}}, x)

    root = np.sqrt(np.mean(np.square(x), -1, keepdims=True)) + 1e-6
    np.testing.assert_allclose(apply(x), np.array([1.0, 2.0]) * x / root, rtol=1e-5)
    assert np.isfinite(jax.jacobian(apply)(x)).all()


def batch_norm(x, mask, train=True, stats=None, **kwargs):
    stats = stats or {"mean": jnp.zeros(x.shape[-1]), "var": jnp.ones(x.shape[-1])}
    norm = BatchNorm(0.9, affine=False, **kwargs)
    return norm.apply({"batch_stats": stats}, x, mask, train, mutable=["batch_stats"])


def test_batch_norm_takes_its_statistics_from_valid_entries_alone():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(3, 2, (4, 5, 3)), jnp.float32)
    mask = jnp.asarray(rng.random((4, 5)) < 0.5)
    y, updates = batch_norm(x, mask)
    valid = np.asarray(x)[np.asarray(mask)]
    np.testing.assert_allclose(np.asarray(y)[np.asarray(mask)].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(y)[np.asarray(mask)].std(0), 1, atol=1e-3)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.1 * valid.mean(0), rtol=1e-5)
    np.testing.assert_allclose(updates["batch_stats"]["var"], 0.9 + 0.1 * valid.var(0), rtol=1e-5)


def test_batch_norm_of_nothing_moves_nothing_and_stays_finite():
    x, mask = jnp.ones((4, 3)), jnp.zeros(4, bool)
    stats = {"mean": jnp.array([1.0, 2, 3]), "var": jnp.array([4.0, 5, 6])}
    y, updates = batch_norm(x, mask, stats=stats)
    assert np.isfinite(y).all()
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], stats)
    assert np.isfinite(jax.grad(lambda x: batch_norm(x, mask)[0].sum())(x)).all()


def test_batch_norm_evaluates_with_running_statistics():
    x = jnp.array([[5.0], [7.0]])
    stats = {"mean": jnp.array([1.0]), "var": jnp.array([4.0])}
    y, _ = batch_norm(x, jnp.ones(2, bool), train=False, stats=stats, epsilon=0.0)
    np.testing.assert_allclose(y, [[2.0], [3.0]])


def test_batch_norm_is_float32_inside_bfloat16():
    x = jnp.asarray(np.random.default_rng(0).normal(100, 1, (1000, 1)), jnp.bfloat16)
    _, updates = batch_norm(x, jnp.ones(1000, bool))
    valid = np.asarray(x, np.float64)
    np.testing.assert_allclose(updates["batch_stats"]["var"], 0.9 + 0.1 * valid.var(0), rtol=1e-3)


def test_dice_is_its_formula():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(1, 2, (64, 3)), jnp.float32)
    alpha = jnp.array([0.0, 0.5, -1.0])
    stats = {"norm": {"mean": jnp.zeros(3), "var": jnp.ones(3)}}
    y, _ = Dice(0.9).apply(
        {"params": {"alpha": alpha}, "batch_stats": stats},
        x,
        jnp.ones(64, bool),
        True,
        mutable=["batch_stats"],
    )
    p = 1 / (1 + np.exp(-(x - x.mean(0)) / x.std(0)))
    np.testing.assert_allclose(y, p * x + alpha * (1 - p) * x, atol=1e-4)
    fresh = Dice(0.9).init(jax.random.key(0), x, jnp.ones(64, bool), False)["params"]["alpha"].unbox()
    np.testing.assert_array_equal(fresh, np.zeros(3))


def test_layer_norm_is_its_formula_and_finite_at_a_constant():
    x = jnp.array([[3.0, -4.0, 7.0], [5.0, 5.0, 5.0]])
    params = {"scale": jnp.array([1.0, 2.0, 3.0]), "bias": jnp.array([0.5, 0.0, -1.0])}

    def apply(x):
        return LayerNorm().apply({"params": params}, x)

    deviation = np.sqrt(np.var(x, -1, keepdims=True) + 1e-6)
    expected = params["scale"] * (x - np.mean(x, -1, keepdims=True)) / deviation + params["bias"]
    np.testing.assert_allclose(apply(x), expected, rtol=1e-5)
    assert np.isfinite(jax.jacobian(apply)(x)).all()
