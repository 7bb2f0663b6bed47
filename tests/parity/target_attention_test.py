"""Target attention against FuxiCTR's MultiHeadTargetAttention."""

import jax
import jax.numpy as jnp
import numpy as np

from suan_jax.layers.target_attention import TargetAttention
from suan_jax.layers.time_buckets import TABLE_ROWS
from tests.parity.carried import (
    assert_close,
    assert_same,
    carry,
    fuxictr_layers,
    normal,
    random_variables,
    torch,
)

layers = fuxictr_layers()
B, K, H, DH, E = 5, 6, 3, 4, 9
WIDTH = H * DH  # of an event with its time gap, which theirs takes for the query and the output too
MASK = np.arange(K) < np.array([6, 1, 3, 6, 4])[:, None]
GAP = np.random.default_rng(0).integers(0, TABLE_ROWS, (B, K)).astype(np.int32)


def both():
    """Ours with its table of time gaps, and FuxiCTR's with the same weights, on events that hold theirs."""
    ours = TargetAttention(H, DH, WIDTH - E)
    shapes = jnp.zeros((B, 1, WIDTH)), jnp.zeros((B, 1, K, E)), GAP[:, None], MASK[:, None]
    variables = random_variables(ours, *shapes)
    query, pool = variables["params"]["query"], variables["params"]["pool"]
    theirs = layers.MultiHeadTargetAttention(WIDTH, WIDTH, H)
    for linear, kernel in (
        (theirs.W_q, query["query"]),
        (theirs.W_k, query["key"]),
        (theirs.W_v, pool["value"]),
        (theirs.W_o, pool["out"]),
    ):
        carry(linear.weight, kernel.reshape(WIDTH, WIDTH).T)

    def apply(q, e, mask):
        return ours.apply(variables, q[:, None], e[:, None], GAP[:, None], mask[:, None])[:, 0]

    gaps = torch.from_numpy(variables["params"]["gap_table"][GAP])
    return apply, lambda q, e, mask: theirs(q, torch.cat([e, gaps], -1), torch.from_numpy(mask))


def test_outputs_and_gradients():
    ours, theirs = both()
    q, e = normal(1, B, WIDTH), normal(2, B, K, E)
    assert_same(lambda q, e: ours(q, e, MASK), lambda q, e: theirs(q, e, MASK), q, e)


def test_no_event_at_all_is_zero_and_theirs_the_mean_of_the_pads():
    # FuxiCTR's softmax over -1e9 alone is uniform. What a row of no events gets must not depend on its pads.
    ours, theirs = both()
    q, e, none = normal(1, B, WIDTH), normal(2, B, K, E), np.zeros((B, K), bool)
    np.testing.assert_array_equal(jax.jit(lambda q, e: ours(q, e, none))(q, e), 0)
    q, e = torch.from_numpy(q), torch.from_numpy(e)
    assert theirs(q, e, none).abs().max() > 0.1
    # The query makes no difference to a mean.
    assert_close(theirs(0 * q, e, none).detach(), theirs(q, e, none), 1e-4)
