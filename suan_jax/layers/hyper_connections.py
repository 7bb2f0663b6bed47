"""Dynamic hyper-connections (arXiv 2409.19606): several residual streams, read, mixed and written by gates.

Around a sublayer T, with n streams H ∈ R^{n × D} of a token and H̄ = RMSNorm(H):

    A_m = a_m + s_α tanh(H̄ W_m)  (n)        u  = Σ_s A_m[s] H[s]
    A_r = a_r + s_α tanh(H̄ W_r)  (n × n)    y  = T(norm(u))
    B   = b   + s_β tanh(H̄ W_β)  (n)        H' = A_rᵀ H + B ⊗ y

a_m starts as the unit vector of k mod n (k the sublayer's index), a_r as the identity, b as ones, every W as
zero and both scales s as 0.01: at the start every stream is the pre-norm residual.

This project's decisions: streams are reduced by their mean wherever a state is read (the paper sums, then
norms; a sum that is made into streams again grows); a single stream is the plain residual, without
parameters; streams and coefficients are float32 whatever the dtype of the sublayer.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

from suan_jax.layers.dense import Axes
from suan_jax.layers.norms import RMSNorm

SCALE = 0.01  # initial s_α and s_β


def make_streams(x: jax.Array, streams: int) -> jax.Array:
    """`streams` copies of the states (..., D): (..., N, D) float32."""
    x = x.astype(jnp.float32)
    return jnp.broadcast_to(x[..., None, :], (*x.shape[:-1], streams, x.shape[-1]))


def reduce_streams(h: jax.Array) -> jax.Array:
    """The state that streams (..., N, D) stand for: their mean, (..., D)."""
    return jnp.mean(h, axis=-2)


class HyperConnection(nn.Module):
    """What a sublayer reads from its token's streams, and how its result is written back.

    Attributes:
      index: k, the sublayer's index among those that a state passes.
    """

    index: int

    @nn.compact
    def __call__(self, h: jax.Array) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
        """For streams H (..., N, D) float32: u (..., D), and the function from y (..., D) to H'."""
        streams = h.shape[-2]
        if streams == 1:
            return h[..., 0, :], lambda y: h + y.astype(jnp.float32)[..., None, :]

        def param(name: str, init: Initializer, axes: Axes, shape: tuple[int, ...]) -> jax.Array:
            return self.param(name, nn.with_logical_partitioning(init, axes), shape, jnp.float32)

        # Vectors, whatever their meaning: a matrix would take weight decay.
        read = param("read", lambda _, shape, dtype: _unit(self.index, *shape, dtype), (None,), (streams,))
        mix = param("mix", lambda _, __, dtype: jnp.eye(streams, dtype=dtype).ravel(), (None,), (streams**2,))
        write = param("write", nn.initializers.ones_init(), (None,), (streams,))
        alpha = param("scale_alpha", nn.initializers.constant(SCALE), (), ())
        beta = param("scale_beta", nn.initializers.constant(SCALE), (), ())
        width = h.shape[-1]
        kernel = param("kernel", nn.initializers.zeros_init(), ("embed", None), (width, streams + 2))

        dynamic = jnp.tanh(jnp.einsum("...nd,dc->...nc", RMSNorm(name="norm")(h), kernel))
        a_m = read + alpha * dynamic[..., 0]
        a_r = mix.reshape(streams, streams) + alpha * dynamic[..., 1 : streams + 1]
        b = write + beta * dynamic[..., streams + 1]
        # Sums of a few products, not matrix products, which a GPU would round to fewer bits of the residual.
        u = jnp.sum(a_m[..., None] * h, axis=-2)
        mixed = jnp.sum(a_r[..., None] * h[..., :, None, :], axis=-3)
        return u, lambda y: mixed + b[..., None] * y.astype(jnp.float32)[..., None, :]


def _unit(index: int, size: int, dtype: jnp.dtype) -> jax.Array:
    return jax.nn.one_hot(index % size, size, dtype=dtype)


def connection_macs(streams: int, width: int) -> int:
    """Multiply-adds of `HyperConnection` for one token: coefficients, u, A_rᵀ H and B ⊗ y."""
    return 0 if streams == 1 else (2 * streams + 4) * streams * width
