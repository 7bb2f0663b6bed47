import jax
import numpy as np
import pytest
from flax.linen import meta

from suan_jax.layers.feed_forward import SwiGLU


@pytest.mark.smoke
def test_swiglu_is_its_formula():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    layer = SwiGLU(6)
    params = jax.tree.map(lambda p: p + 0.1, meta.unbox(layer.init(jax.random.key(0), x))["params"])

    def dense(name, y):
        return y @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])

    gate = dense("gate", x)
    expected = dense("out", gate / (1 + np.exp(-gate)) * dense("value", x))
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-6)
