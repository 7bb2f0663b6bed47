"""RMSNorm, LayerNorm and BatchNorm against PyTorch's."""

import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.layers.norms import BatchNorm, LayerNorm, RMSNorm
from tests.parity.carried import assert_close, assert_same, carry_statistics, normal, torch


def test_rms_norm():
    # Ours adds 1e-6 to the root, as SUAN's released code does, PyTorch's adds it below the root: at states of
    # size 1 that is 1e-6 against 5e-7, which no tolerance here can see.
    theirs = torch.nn.RMSNorm(12, eps=1e-6)

    def other(x, scale):
        return torch.func.functional_call(theirs, {"weight": scale}, (x,))

    def apply(x, scale):
        return RMSNorm().apply({"params": {"scale": scale}}, x)

    assert_same(apply, other, normal(0, 3, 5, 12), normal(1, 12))


def test_where_epsilon_stands_shows_at_tiny_states():
    # At a root mean square of 1e-6 ours halves the state's direction; below the root the same epsilon is
    # 1e-3 of the norm's divisor and leaves next to nothing.
    x = np.full((1, 4), 1e-6, np.float32)
    ours = RMSNorm().apply({"params": {"scale": jnp.ones(4)}}, x)
    np.testing.assert_allclose(ours, 0.5, rtol=1e-4)
    assert_close(torch.nn.RMSNorm(4, eps=1e-6)(torch.from_numpy(x)).detach(), torch.full((1, 4), 1e-3), 1e-6)


def test_layer_norm():
    theirs = torch.nn.LayerNorm(12, eps=1e-6)  # its default is 1e-5

    def other(x, scale, bias):
        return torch.func.functional_call(theirs, {"weight": scale, "bias": bias}, (x,))

    def apply(x, scale, bias):
        return LayerNorm().apply({"params": {"scale": scale, "bias": bias}}, x)

    assert_same(apply, other, 2 * normal(0, 3, 5, 12) + 1, normal(1, 12), normal(2, 12))


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm(train):
    mean, var = normal(2, 6), np.abs(normal(3, 6)) + 0.1
    theirs = torch.nn.BatchNorm1d(6).train(train)
    carry_statistics(theirs, {"mean": mean, "var": var})

    def other(x, scale, bias):
        return torch.func.functional_call(theirs, {"weight": scale, "bias": bias}, (x,))

    def apply(x, scale, bias):
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": mean, "var": var}}
        return BatchNorm(0.9).apply(variables, x, jnp.ones(32, bool), train, mutable=["batch_stats"])[0]

    assert_same(apply, other, 2 * normal(0, 32, 6) + 1, normal(4, 6), normal(5, 6))
