"""DIN, the Deep Interest Network (KDD 2018, arXiv 1706.06978).

    a_i = MLP([q, k_i, q − k_i, q ⊙ k_i]),  Dice between its layers
    v   = Σ_i m_i a_i e_i

over the events i that the candidate sees (m_i), without a softmax as in the paper, or with one
(`softmax = True`). The interest v goes to the shared head. There are no history states, so a row may hold any
candidates, of one request or of different times.

This project's decisions: q and k are the features that candidate and history share, side by side; e is all of
the event's features, so that the model sees what the others see; the MLP is 80-40-1; the head is the one that
all models share.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.errors import UserError
from suan_jax.layers import masking
from suan_jax.layers.attention import MASKED
from suan_jax.layers.dense import Dense
from suan_jax.layers.dice import Dice
from suan_jax.layers.embedding import Rows
from suan_jax.layers.head import Head, head_macs
from suan_jax.layers.tokens import concat, shared_names
from suan_jax.models.model import ModelDefinition, Output, register
from suan_jax.schema import Schema


@register
@dataclasses.dataclass
class Din(ModelDefinition):
    """DIN's settings; it has one grade, 0.

    Attributes:
      attention_hidden: widths of the hidden layers of the attention's MLP.
      softmax: whether the scores pass through a softmax over the events.
    """

    name: str = "din"
    attention_hidden: tuple[int, ...] = (80, 40)
    softmax: bool = False

    def module(self, schema: Schema, max_len: int) -> nn.Module:
        """See `ModelDefinition`."""
        if self.grade != 0:
            raise UserError(f"config.model.grade is {self.grade}, expected 0, the only grade of din")
        if not self.attention_hidden:
            raise UserError("config.model.attention_hidden is empty, expected at least one width")
        return DinModule(self, schema, self.compute_dtype())

    def across_time_refusal(self) -> str:
        """See `ModelDefinition`."""
        return ""

    def flops_per_example(self, schema: Schema, max_len: int) -> float:
        """See `ModelDefinition`."""
        return self.useful_flops(schema, np.array([max_len]))

    def useful_flops(self, schema: Schema, lengths: np.ndarray) -> float:
        """See `ModelDefinition`."""
        events = float(np.mean(lengths))
        row = self.embedding_width
        shared, features = len(shared_names(schema)) * row, len(schema.history) * row
        hidden = self.attention_hidden
        deeper = sum(before * after for before, after in zip(hidden, (*hidden[1:], 1), strict=True))
        pair = shared * hidden[0] + deeper + features  # the product term, the other layers, the sum
        macs = events * pair + (events + 1) * shared * hidden[0]
        return 2.0 * (macs + head_macs(schema, features, row, self.head))


class TargetScore(nn.Module):
    """MLP([q, k, q − k, q ⊙ k]) of every pair of candidate and event, Dice between its layers.

    Attributes:
      hidden: widths of the hidden layers.
      momentum: of Dice's statistics.
      dtype: dtype of the products.
    """

    hidden: tuple[int, ...]
    momentum: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, q_BxMxK: jax.Array, k_BxLxK: jax.Array, mask_BxMxL: jax.Array, train: bool
    ) -> jax.Array:
        """Scores (B, M, L), float32; pairs that `mask` excludes stay out of Dice's statistics."""
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


class DinModule(nn.Module):
    """DIN on gathered rows.

    Attributes:
      config: the settings.
      schema: the log's schema.
      dtype: dtype of activations.
    """

    config: Din
    schema: Schema
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, rows: Rows, batch: Batch, train: bool) -> Output:
        """Logits of every candidate."""
        config, shared = self.config, shared_names(self.schema)
        q_BxMxK = concat(rows["candidate"], shared).astype(self.dtype)
        k_BxLxK = concat(rows["history"], shared).astype(self.dtype)
        e_BxLxE = concat(rows["history"], [f.name for f in self.schema.history]).astype(self.dtype)
        mask_BxMxL = masking.candidate_visibility(batch)
        momentum = config.batch_norm_momentum
        score = TargetScore(config.attention_hidden, momentum, self.dtype, name="attention")
        a_BxMxL = score(q_BxMxK, k_BxLxK, mask_BxMxL, train)
        if config.softmax:
            a_BxMxL = jax.nn.softmax(jnp.where(mask_BxMxL, a_BxMxL, MASKED), axis=-1)
        a_BxMxL = jnp.where(mask_BxMxL, a_BxMxL, 0.0).astype(self.dtype)
        v_BxMxE = jnp.einsum("bml,ble->bme", a_BxMxL, e_BxLxE)
        head = Head(self.schema, config.head, momentum, dtype=self.dtype, name="head")
        return Output(head(v_BxMxE, rows, batch, train))
