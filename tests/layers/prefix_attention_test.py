import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.layers.attention import attention
from suan_jax.layers.prefix_attention import prefix_attention, prefix_pairs

GROUP = 2


@pytest.mark.parametrize(("sequence", "groups"), [(4, 3), (4, 0), (0, 3)])
def test_it_is_attention_under_the_mask_of_who_sees_whom(sequence, groups):
    rng = np.random.default_rng(0)
    tokens = sequence + groups * GROUP
    q, k, v = (jnp.asarray(rng.normal(size=(3, tokens, 2, 4)), jnp.float32) for _ in range(3))
    valid = jnp.arange(sequence) < jnp.asarray([[4], [2], [0]])
    sees = np.zeros((3, tokens, tokens), bool)
    sees[:, :, :sequence] = valid[:, None]
    for token in range(sequence, tokens):
        first = token - (token - sequence) % GROUP
        sees[:, token, first : first + GROUP] = True
    expected = attention(q, k, v, None, jnp.asarray(sees))
    np.testing.assert_allclose(prefix_attention(q, k, v, valid, GROUP), expected, atol=1e-6)
    assert sees[0].sum() == prefix_pairs(sequence, groups, GROUP)
