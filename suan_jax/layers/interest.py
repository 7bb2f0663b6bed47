"""DIN's interest unit: the events pooled by how well each matches the candidate (arXiv 1706.06978)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from suan_jax.errors import UserError
from suan_jax.layers.attention import MASKED
from suan_jax.layers.dense import Dense
from suan_jax.layers.dice import Dice


def check_hidden(hidden: tuple[int, ...]) -> None:
    """Raises `UserError` unless `config.model.attention_hidden` names a width."""
    if not hidden:
        raise UserError("config.model.attention_hidden is empty, expected at least one width")


class TargetInterest(nn.Module):
    """v = Σ_i m_i a_i e_i with a_i = MLP([q, k_i, q − k_i, q ⊙ k_i]), Dice between the MLP's layers.

    Attributes:
      hidden: widths F of the hidden layers.
      momentum: of Dice's statistics.
      softmax: whether the scores pass through a softmax over the events.
      dtype: dtype of the products.
    """

    hidden: tuple[int, ...]
    momentum: float
    softmax: bool = False
    dtype: jnp.dtype = jnp.float32

    def __call__(
        self, q_BxMxC: jax.Array, k_BxLxC: jax.Array, e_BxLxE: jax.Array, mask_BxMxL: jax.Array, train: bool
    ) -> jax.Array:
        """Each candidate's interest (B, M, E), in `dtype`; zero where `mask` leaves it no event."""
        a_BxMxL = self.scores(q_BxMxC, k_BxLxC, mask_BxMxL, train)
        if self.softmax:
            a_BxMxL = jax.nn.softmax(jnp.where(mask_BxMxL, a_BxMxL, MASKED), axis=-1)
        a_BxMxL = jnp.where(mask_BxMxL, a_BxMxL, 0.0).astype(self.dtype)
        return jnp.einsum("bml,ble->bme", a_BxMxL, e_BxLxE.astype(self.dtype))

    @nn.compact
    def scores(self, q_BxMxC: jax.Array, k_BxLxC: jax.Array, mask_BxMxL: jax.Array, train: bool) -> jax.Array:
        """The MLP's scores (B, M, L), float32; pairs that `mask` excludes stay out of Dice's statistics."""
        q_BxMxC, k_BxLxC = q_BxMxC.astype(self.dtype), k_BxLxC.astype(self.dtype)
        width, first = q_BxMxC.shape[-1], self.hidden[0]
        init = nn.initializers.lecun_normal(in_axis=(0, 1), out_axis=2)
        init = nn.with_logical_partitioning(init, (None, None, "mlp"))
        kernel = self.param("kernel", init, (4, width, first), jnp.float32).astype(self.dtype)
        init = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("mlp",))
        bias = self.param("bias", init, (first,), jnp.float32).astype(self.dtype)
        # The first layer, term by term: what depends on q or k alone is not repeated for every pair.
        q_BxMxF = jnp.einsum("bmc,cf->bmf", q_BxMxC, kernel[0] + kernel[2])
        k_BxLxF = jnp.einsum("blc,cf->blf", k_BxLxC, kernel[1] - kernel[2])
        product_BxMxLxC = q_BxMxC[:, :, None] * k_BxLxC[:, None]
        x_BxMxLxF = jnp.einsum("bmlc,cf->bmlf", product_BxMxLxC, kernel[3])
        x_BxMxLxF = x_BxMxLxF + q_BxMxF[:, :, None] + k_BxLxF[:, None] + bias
        for index, features in enumerate((*self.hidden[1:], 1)):
            x_BxMxLxF = Dice(self.momentum, name=f"dice_{index}")(x_BxMxLxF, mask_BxMxL, train)
            last = index == len(self.hidden) - 1
            axes, dtype = ((None, None), jnp.float32) if last else ((None, "mlp"), self.dtype)
            x_BxMxLxF = Dense(features, axes, dtype=dtype, name=f"dense_{index}")(x_BxMxLxF)
        return x_BxMxLxF[..., 0]


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
