"""DIN's interest unit against FuxiCTR's DIN_Attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.layers.interest import TargetInterest
from tests.parity.carried import (
    assert_close,
    assert_same,
    carry_interest,
    fuxictr_layers,
    normal,
    random_variables,
    torch,
)

layers = fuxictr_layers()
B, L, K, HIDDEN = 6, 9, 8, (12, 5)
ALL = np.ones((B, L), bool)
MASK = np.arange(L) < np.array([9, 1, 4, 9, 6, 2])[:, None]


def both(softmax=False):
    """Our unit with its variables, and FuxiCTR's with the same weights and running statistics."""
    ours = TargetInterest(HIDDEN, momentum=0.99, softmax=softmax)
    shapes = (jnp.zeros((B, 1, K)), jnp.zeros((B, L, K)), jnp.zeros((B, L, K)), jnp.ones((B, 1, L), bool))
    variables = random_variables(ours, *shapes, False)
    theirs = layers.DIN_Attention(
        K, attention_units=list(HIDDEN), hidden_activations="Dice", use_softmax=softmax
    )
    carry_interest(theirs, variables["params"], variables["batch_stats"])

    def apply(q, k, mask, train):
        """Ours for one candidate a row, (B, K)."""
        out, _ = ours.apply(variables, q[:, None], k, k, mask[:, None], train, mutable=["batch_stats"])
        return out[:, 0]

    return apply, theirs


def inputs():
    return normal(1, B, K), normal(2, B, L, K)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_full_histories(train, softmax):
    apply, theirs = both(softmax)
    theirs.train(train)
    mask = torch.from_numpy(ALL)
    assert_same(lambda q, k: apply(q, k, ALL, train), lambda q, k: theirs(q, k, mask), *inputs())


@pytest.mark.parametrize("softmax", [False, True])
def test_padded_histories_in_evaluation(softmax):
    apply, theirs = both(softmax)
    mask = torch.from_numpy(MASK)
    theirs.eval()
    assert_same(lambda q, k: apply(q, k, MASK, False), lambda q, k: theirs(q, k, mask), *inputs())


def test_padded_histories_in_training_give_what_the_other_gives_for_the_valid_pairs_alone():
    # FuxiCTR's Dice normalises by the statistics of all slots, so its scores depend on how many pads a batch
    # has; here pads stay out. Without pads both agree (above), so it is given each valid pair as a row.
    apply, theirs = both()
    theirs.train()
    q, k = inputs()
    row, _ = np.nonzero(MASK)
    pairs = theirs(torch.from_numpy(q[row]), torch.from_numpy(k[MASK][:, None]))
    expected = torch.zeros(B, K).index_add(0, torch.from_numpy(row), pairs.detach())
    ours = jax.jit(lambda q, k: apply(q, k, MASK, True))(q, k)
    assert_close(ours, expected)
    with_pads = theirs(torch.from_numpy(q), torch.from_numpy(k), torch.from_numpy(MASK))
    assert np.abs(np.asarray(ours) - with_pads.detach().numpy()).max() > 1e-2


def test_an_empty_history_with_softmax_is_zero_and_theirs_the_mean_of_the_pads():
    # FuxiCTR's own pads are zero rows, so the difference shows only if pads hold something.
    apply, theirs = both(softmax=True)
    q, k = inputs()
    none = np.zeros((B, L), bool)
    ours = jax.jit(lambda q, k: apply(q, k, none, False))(q, k)
    np.testing.assert_array_equal(ours, 0)
    other = theirs.eval()(torch.from_numpy(q), torch.from_numpy(k), torch.from_numpy(none))
    assert_close(k.mean(1), other, 1e-4)
