"""Feed-forward layers of attention blocks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from suan_jax.layers.dense import Dense


class SwiGLU(nn.Module):
    """(silu(x Wa + ba) ⊙ (x Wb + bb)) Wc + bc (arXiv 2002.05202, with biases as SUAN has them).

    Attributes:
      hidden: width of the gate.
      dtype: dtype of the products.
    """

    hidden: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (..., D) to (..., D)."""
        gate = Dense(self.hidden, ("embed", "mlp"), dtype=self.dtype, name="gate")(x)
        value = Dense(self.hidden, ("embed", "mlp"), dtype=self.dtype, name="value")(x)
        out = Dense(x.shape[-1], ("mlp", "embed"), dtype=self.dtype, name="out")
        return out(jax.nn.silu(gate) * value)
