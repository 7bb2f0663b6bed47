"""Dice against FuxiCTR's."""

import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.layers.dice import Dice
from tests.parity.carried import (
    assert_close,
    assert_same,
    carry_dice,
    fuxictr_layers,
    normal,
    random_variables,
    torch,
)

layers = fuxictr_layers()
MOMENTUM = 0.99  # FuxiCTR's, which it writes as the share of the new statistics, 0.01


def both(width):
    """Our Dice with variables, and FuxiCTR's with the same alpha and running statistics."""
    ours, theirs = Dice(MOMENTUM), layers.Dice(width)
    variables = random_variables(ours, jnp.zeros((1, width)), jnp.ones(1, bool), False)
    carry_dice(theirs, variables["params"], variables["batch_stats"])
    return ours, variables, theirs


@pytest.mark.parametrize("train", [True, False])
def test_outputs_and_gradients(train):
    ours, variables, theirs = both(6)
    theirs.train(train)

    def apply(x, alpha):
        changed = {**variables, "params": {"alpha": alpha}}
        return ours.apply(changed, x, jnp.ones(32, bool), train, mutable=["batch_stats"])[0]

    def other(x, alpha):
        return torch.func.functional_call(theirs, {"alpha": alpha}, (x,))

    assert_same(apply, other, 2 * normal(0, 32, 6) + 1, variables["params"]["alpha"])


def test_pads_are_entries_that_the_other_never_got():
    ours, variables, theirs = both(6)
    x, mask = normal(0, 4, 8, 6), np.random.default_rng(0).random((4, 8)) < 0.5
    out, _ = ours.apply(variables, x, mask, True, mutable=["batch_stats"])
    assert_close(out[mask], theirs.train()(torch.from_numpy(x[mask])))


def test_running_variance_is_of_the_batch_and_theirs_is_the_unbiased_estimate():
    # Ours averages the very variance that training divides by (flax and TensorFlow do the same); PyTorch's
    # BatchNorm averages n / (n - 1) times that. The paper leaves it
    # open; at a batch of 1,024 the two are a thousandth apart.
    n = 8
    ours, variables, theirs = both(6)
    x = normal(0, n, 6)
    _, updates = ours.apply(variables, x, jnp.ones(n, bool), True, mutable=["batch_stats"])
    theirs.train()(torch.from_numpy(x))
    stats = updates["batch_stats"]["norm"]
    assert_close(stats["mean"], theirs.bn.running_mean)
    before = MOMENTUM * variables["batch_stats"]["norm"]["var"]
    assert_close((stats["var"] - before) * n / (n - 1) + before, theirs.bn.running_var, 1e-6)
    assert np.abs(stats["var"] - theirs.bn.running_var.numpy()).max() > 1e-4


def test_epsilon_is_the_papers_and_shows_at_small_inputs_alone():
    # The paper sets epsilon to 1e-8; FuxiCTR takes 1e-9. At a variance of 1e-8 the one divides by the root of
    # 2e-8, the other by that of 1.1e-8.
    ours, variables, theirs = both(6)
    stats = {"norm": {"mean": np.zeros(6, np.float32), "var": np.full(6, 1e-8, np.float32)}}
    variables["batch_stats"] = stats
    carry_dice(theirs, variables["params"], stats)
    x = 1e-4 * normal(0, 32, 6)
    out = np.asarray(ours.apply(variables, x, jnp.ones(32, bool), False))
    other = theirs.eval()(torch.from_numpy(x)).detach().numpy()
    theirs.bn.eps = 1e-8
    assert_close(out, theirs(torch.from_numpy(x)), 1e-10)
    assert np.abs(out - other).max() > 1e-6
