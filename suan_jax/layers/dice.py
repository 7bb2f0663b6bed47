"""Dice, the activation of the Deep Interest Network (arXiv 1706.06978, equation 9)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from suan_jax.layers.norms import BatchNorm


class Dice(nn.Module):
    """p x + α (1 − p) x with p = sigmoid(BatchNorm(x)), BatchNorm without affine, α per channel from 0.

    Attributes:
      momentum: share of the old running statistics kept.
    """

    momentum: float

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, train: bool) -> jax.Array:
        """Activates x (..., C), keeping its dtype; `mask` (...) is False at pads, which leave no trace."""
        init = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("mlp",))
        alpha = self.param("alpha", init, (x.shape[-1],), jnp.float32).astype(x.dtype)
        # Inputs made from fresh embeddings are small: a larger ε would make p a constant 1/2.
        norm = BatchNorm(self.momentum, affine=False, epsilon=1e-8, name="norm")
        p = jax.nn.sigmoid(norm(x, mask, train))
        return x * (alpha + (1 - alpha) * p)
