"""MultiHeadAttention against PyTorch's."""

import jax
import numpy as np
import pytest

from suan_jax.layers.attention import MultiHeadAttention
from tests.parity.carried import assert_same, carry, normal, torch

B, T, S, D, C, H = 3, 5, 7, 12, 6, 4
LENGTHS = np.array([7, 4, 1])
KEYS = np.arange(S) < LENGTHS[:, None]
CAUSAL = np.tril(np.ones((S, S), bool))


def both(width):
    """Ours with weights, and PyTorch's with the same, for keys and values of a width."""
    query, key, value, out = (normal(seed, rows, D) / 2 for seed, rows in enumerate((D, width, width, D)))
    theirs = torch.nn.MultiheadAttention(D, H, bias=False, batch_first=True, kdim=width, vdim=width)
    if width == D:
        carry(theirs.in_proj_weight, np.concatenate([query.T, key.T, value.T]))
    else:
        carry(theirs.q_proj_weight, query.T)
        carry(theirs.k_proj_weight, key.T)
        carry(theirs.v_proj_weight, value.T)
    carry(theirs.out_proj.weight, out.T)
    kernels = {
        name: x.reshape(-1, H, D // H) for name, x in (("query", query), ("key", key), ("value", value))
    }
    params = {**kernels, "out": out.reshape(H, D // H, D)}

    def apply(x, y, bias, mask):
        return MultiHeadAttention(H).apply({"params": params}, x, y, bias, mask)

    return apply, theirs


@pytest.mark.parametrize("causal", [True, False])
def test_self_attention_with_padded_keys(causal):
    apply, theirs = both(D)
    mask = np.broadcast_to(KEYS[:, None] & CAUSAL if causal else KEYS[:, None], (B, S, S))
    arguments = {"key_padding_mask": torch.from_numpy(~KEYS), "need_weights": False}
    if causal:
        arguments["attn_mask"] = torch.from_numpy(~CAUSAL)
    assert_same(
        lambda x: apply(x, x, None, mask),
        lambda x: theirs(x, x, x, **arguments)[0],
        normal(9, B, S, D),
    )


def test_bias_on_the_scores_of_every_head():
    apply, theirs = both(D)

    def other(x, bias):
        hidden = torch.zeros(B, 1, S).masked_fill(torch.from_numpy(~KEYS)[:, None], -torch.inf)
        return theirs(x, x, x, attn_mask=(bias + hidden).repeat_interleave(H, 0), need_weights=False)[0]

    mask = np.broadcast_to(KEYS[:, None], (B, S, S))
    assert_same(lambda x, bias: apply(x, x, bias, mask), other, normal(9, B, S, D), normal(8, B, S, S))


def test_cross_attention_to_keys_of_another_width():
    apply, theirs = both(C)
    hidden = torch.from_numpy(~KEYS)
    assert_same(
        lambda x, y: apply(x, y, None, KEYS[:, None]),
        lambda x, y: theirs(x, y, y, key_padding_mask=hidden, need_weights=False)[0],
        normal(9, B, T, D),
        normal(8, B, S, C),
    )


def test_a_query_that_sees_no_key_is_zero():
    # As on PyTorch's fused path; its plain one, which also returns weights, gives NaN there: the softmax of
    # minus infinity alone.
    apply, theirs = both(D)
    x, nothing = normal(9, B, S, D), np.zeros((B, S), bool)
    np.testing.assert_array_equal(jax.jit(lambda x: apply(x, x, None, nothing[:, None]))(x), 0)
    x, hidden = torch.from_numpy(x), torch.from_numpy(~nothing)
    fused, plain = (theirs(x, x, x, key_padding_mask=hidden, need_weights=weights)[0] for weights in (0, 1))
    assert (fused == 0).all() and plain.isnan().all()
