"""BST's block against PyTorch's post-norm TransformerEncoderLayer."""

import jax.numpy as jnp
import numpy as np

from suan_jax.models.bst import TransformerBlock
from tests.parity.carried import assert_same, carry_block, normal, random_variables, torch

B, T, D, H = 4, 6, 12, 3
MASK = np.arange(T) >= np.array([0, 5, 2, 4])[:, None]  # the last token, the candidate, is always there


def test_outputs_and_gradients():
    ours = TransformerBlock(H, jnp.float32)
    variables = random_variables(ours, jnp.zeros((B, T, D)), MASK[:, None])
    theirs = torch.nn.TransformerEncoderLayer(
        D, H, 4 * D, dropout=0.0, activation=torch.nn.LeakyReLU(), batch_first=True
    )
    carry_block(theirs, variables["params"])
    hidden = torch.from_numpy(~MASK)
    assert_same(
        lambda x: ours.apply(variables, x, MASK[:, None])[0],
        lambda x: theirs(x, src_key_padding_mask=hidden),
        normal(1, B, T, D),
    )
