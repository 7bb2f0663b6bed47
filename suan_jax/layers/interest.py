"""DIN's interest unit: the events pooled by how well each matches the candidate (arXiv 1706.06978)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from suan_jax.layers.attention import MASKED
from suan_jax.layers.dense import Dense
from suan_jax.layers.dice import Dice


class TargetInterest(nn.Module):
    """v = Σ_i m_i a_i e_i with a_i = MLP([q, k_i, q − k_i, q ⊙ k_i]), Dice between the MLP's layers.

    Attributes:
      hidden: widths of the hidden layers.
      momentum: of Dice's statistics.
      softmax: whether the scores pass through a softmax over the events.
      dtype: dtype of the products.
    """

    hidden: tuple[int, ...]
    momentum: float
    softmax: bool = False
    dtype: jnp.dtype = jnp.float32

    def __call__(
        self, q_BxMxK: jax.Array, k_BxLxK: jax.Array, e_BxLxE: jax.Array, mask_BxMxL: jax.Array, train: bool
    ) -> jax.Array:
        """Each candidate's interest (B, M, E), in `dtype`; zero where `mask` leaves it no event."""
        a_BxMxL = self.scores(q_BxMxK, k_BxLxK, mask_BxMxL, train)
        if self.softmax:
            a_BxMxL = jax.nn.softmax(jnp.where(mask_BxMxL, a_BxMxL, MASKED), axis=-1)
        a_BxMxL = jnp.where(mask_BxMxL, a_BxMxL, 0.0).astype(self.dtype)
        return jnp.einsum("bml,ble->bme", a_BxMxL, e_BxLxE.astype(self.dtype))

    @nn.compact
    def scores(self, q_BxMxK: jax.Array, k_BxLxK: jax.Array, mask_BxMxL: jax.Array, train: bool) -> jax.Array:
        """The MLP's scores (B, M, L), float32; pairs that `mask` excludes stay out of Dice's statistics."""
        q_BxMxK, k_BxLxK = q_BxMxK.astype(self.dtype), k_BxLxK.astype(self.dtype)
        width, first = q_BxMxK.shape[-1], self.hidden[0]
        init = nn.initializers.lecun_normal(in_axis=(0, 1), out_axis=2)
        init = nn.with_logical_partitioning(init, (None, None, "mlp"))
        kernel = self.param("kernel", init, (4, width, first), jnp.float32).astype(self.dtype)
        init = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("mlp",))
        bias = self.param("bias", init, (first,), jnp.float32).astype(self.dtype)
        # The first layer, term by term: what depends on q or k alone is not repeated for every pair.
        from_q = jnp.einsum("bmk,kh->bmh", q_BxMxK, kernel[0] + kernel[2])
        from_k = jnp.einsum("blk,kh->blh", k_BxLxK, kernel[1] - kernel[2])
        product = q_BxMxK[:, :, None] * k_BxLxK[:, None]
        x = jnp.einsum("bmlk,kh->bmlh", product, kernel[3]) + from_q[:, :, None] + from_k[:, None] + bias
        for index, features in enumerate((*self.hidden[1:], 1)):
            x = Dice(self.momentum, name=f"dice_{index}")(x, mask_BxMxL, train)
            last = index == len(self.hidden) - 1
            axes, dtype = ((None, None), jnp.float32) if last else ((None, "mlp"), self.dtype)
            x = Dense(features, axes, dtype=dtype, name=f"dense_{index}")(x)
        return x[..., 0]


def interest_macs(events: float, key_width: int, event_width: int, hidden: tuple[int, ...]) -> float:
    """Multiply-adds of `TargetInterest` for one candidate.

    Args:
      events: events it pools.
      key_width: width of q and k.
      event_width: width of e.
      hidden: widths of the hidden layers.
    """
    deeper = sum(before * after for before, after in zip(hidden, (*hidden[1:], 1), strict=True))
    pair = key_width * hidden[0] + deeper + event_width  # the product term, the other layers, the sum
    return events * pair + (events + 1) * key_width * hidden[0]
