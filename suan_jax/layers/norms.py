"""RMSNorm and LayerNorm for states, and batch normalisation that knows which entries are pads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn


class RMSNorm(nn.Module):
    """γ · x / (sqrt(mean(x²)) + ε), the mean over the last axis in float32 (SUAN: ε outside the root)."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises (..., D), keeping its dtype."""
        init = nn.with_logical_partitioning(nn.initializers.ones_init(), ("embed",))
        scale = self.param("scale", init, (x.shape[-1],), jnp.float32)
        x_f32 = x.astype(jnp.float32)
        mean = jnp.mean(jnp.square(x_f32), axis=-1, keepdims=True)
        # The root's slope at 0 is infinite: a state of zeros takes a slope of 0 in its place.
        root = jnp.where(mean > 0, jnp.sqrt(jnp.where(mean > 0, mean, 1.0)), 0.0)
        return (scale * x_f32 / (root + self.epsilon)).astype(x.dtype)


class LayerNorm(nn.Module):
    """γ · (x − mean) / sqrt(var + ε) + β over the last axis, in float32 (arXiv 1607.06450)."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises (..., D), keeping its dtype."""
        ones = nn.with_logical_partitioning(nn.initializers.ones_init(), ("embed",))
        zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("embed",))
        scale = self.param("scale", ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", zeros, (x.shape[-1],), jnp.float32)
        x_f32 = x.astype(jnp.float32)
        centred = x_f32 - jnp.mean(x_f32, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        return (scale * centred * jax.lax.rsqrt(variance + self.epsilon) + bias).astype(x.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation over every axis but the last, in float32, with pads left out.

    Training uses the statistics of the batch's valid entries and moves the running ones; evaluation uses the
    running ones. A batch without a valid entry moves nothing (the mean of nothing would be NaN).

    Attributes:
      momentum: share of the old running statistics kept.
      affine: whether the result is scaled and shifted by learned vectors.
      epsilon: added to the variance.
    """

    momentum: float
    affine: bool = True
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, train: bool) -> jax.Array:
        """Normalises x (..., C), keeping its dtype; `mask` (...) is False at pads."""
        width = x.shape[-1]
        mean_state = self.variable("batch_stats", "mean", jnp.zeros, (width,), jnp.float32)
        var_state = self.variable("batch_stats", "var", jnp.ones, (width,), jnp.float32)
        x_f32 = x.astype(jnp.float32)
        if train:
            axes = tuple(range(x.ndim - 1))
            weight = jnp.broadcast_to(mask, x.shape[:-1])[..., None].astype(jnp.float32)
            count = jnp.maximum(weight.sum(), 1.0)
            mean = jnp.sum(weight * x_f32, axes) / count
            var = jnp.sum(weight * jnp.square(x_f32 - mean), axes) / count
            if not self.is_initializing():
                keep = jnp.where(weight.sum() > 0, self.momentum, 1.0)
                mean_state.value = keep * mean_state.value + (1 - keep) * mean
                var_state.value = keep * var_state.value + (1 - keep) * var
        else:
            mean, var = mean_state.value, var_state.value
        y = (x_f32 - mean) * jax.lax.rsqrt(var + self.epsilon)
        if self.affine:
            ones = nn.with_logical_partitioning(nn.initializers.ones_init(), ("mlp",))
            zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("mlp",))
            scale = self.param("scale", ones, (width,), jnp.float32)
            bias = self.param("bias", zeros, (width,), jnp.float32)
            y = y * scale + bias
        return y.astype(x.dtype)
