"""The affine map of every model, with logical axis names for sharding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

Axes = tuple[str | None, ...]


class Dense(nn.Module):
    """x W + b over the last axis; parameters float32, the product in `dtype`.

    Attributes:
      features: output width.
      axes: logical names of the kernel's (input, output) axes.
      use_bias: whether b exists; it starts at zero.
      dtype: dtype of the product and of the result.
      kernel_init: initialiser of W.
    """

    features: int
    axes: Axes = (None, "mlp")
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32
    kernel_init: Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (..., width) to (..., features)."""
        init = nn.with_logical_partitioning(self.kernel_init, self.axes)
        kernel = self.param("kernel", init, (x.shape[-1], self.features), jnp.float32)
        y = jnp.einsum("...i,io->...o", x.astype(self.dtype), kernel.astype(self.dtype))
        if not self.use_bias:
            return y
        init = nn.with_logical_partitioning(nn.initializers.zeros_init(), self.axes[1:])
        return y + self.param("bias", init, (self.features,), jnp.float32).astype(self.dtype)
