"""The head that every model shares, so that a comparison compares what comes before it."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.layers.dense import Dense
from suan_jax.layers.dice import Dice
from suan_jax.layers.embedding import Rows
from suan_jax.layers.norms import BatchNorm
from suan_jax.schema import Schema


class Head(nn.Module):
    """[state ‖ profile ‖ candidate ‖ context ‖ dense] → (Dense without bias → BatchNorm → Dice)* → Dense(1).

    A missing value is a zero row.

    Attributes:
      schema: the log's schema.
      widths: widths of the hidden layers.
      momentum: of the batch statistics.
      norm_logit: whether a BatchNorm follows the logit (as in SUAN's released code).
      dtype: dtype of the products; statistics and the logit are float32.
    """

    schema: Schema
    widths: tuple[int, ...]
    momentum: float
    norm_logit: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, state_BxMxS: jax.Array, rows: Rows, batch: Batch, train: bool) -> jax.Array:
        """Logits (B, M), float32."""
        size = batch.candidate_mask.shape
        mask = batch.candidate_mask
        parts = [state_BxMxS]
        for feature in self.schema.profile:
            row = rows["profile"][feature.name][:, None]
            parts.append(jnp.broadcast_to(row, (*size, row.shape[-1])))
        parts += [rows["candidate"][feature.name] for feature in self.schema.candidate]
        parts += [rows["context"][feature.name] for feature in self.schema.context]
        parts.append(batch.dense)
        x = jnp.concatenate([part.astype(self.dtype) for part in parts], axis=-1)
        for index, width in enumerate(self.widths):
            x = Dense(width, use_bias=False, dtype=self.dtype, name=f"dense_{index}")(x)
            x = BatchNorm(self.momentum, name=f"norm_{index}")(x, mask, train)
            x = Dice(self.momentum, name=f"dice_{index}")(x, mask, train)
        logit_BxMx1 = Dense(1, (None, None), name="logit")(x)
        if self.norm_logit:
            logit_BxMx1 = BatchNorm(self.momentum, name="norm_logit")(logit_BxMx1, mask, train)
        return logit_BxMx1[:, :, 0]


def head_macs(schema: Schema, state_width: int, row_width: int, widths: tuple[int, ...]) -> int:
    """Multiply-adds of the head for one candidate.

    Args:
      schema: the log's schema.
      state_width: width of the model's own state.
      row_width: width of a feature's embedding.
      widths: widths of the hidden layers.
    """
    features = len(schema.profile) + len(schema.candidate) + len(schema.context)
    sizes = (state_width + features * row_width + len(schema.dense), *widths, 1)
    return sum(before * after for before, after in itertools.pairwise(sizes))
