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

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.layers import masking
from suan_jax.layers.embedding import Rows
from suan_jax.layers.head import Head, head_macs
from suan_jax.layers.interest import TargetInterest, check_hidden, interest_macs
from suan_jax.layers.tokens import concat, shared_names
from suan_jax.models.model import ModelDefinition, Output, register
from suan_jax.models.size import check_only_grade
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
        check_only_grade(self)
        check_hidden(self.attention_hidden)
        return DinModule(self, schema, self.compute_dtype())

    def across_time_refusal(self) -> str:
        """See `ModelDefinition`."""
        return ""

    def useful_flops(self, schema: Schema, lengths: np.ndarray) -> float:
        """See `ModelDefinition`."""
        events = float(np.mean(lengths))
        row = self.embedding_width
        shared, features = len(shared_names(schema)) * row, len(schema.history) * row
        macs = interest_macs(events, shared, features, self.attention_hidden)
        return 2.0 * (macs + head_macs(schema, features, row, self.head))


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
        q_BxMxC = concat(rows["candidate"], shared)
        k_BxLxC = concat(rows["history"], shared)
        e_BxLxE = concat(rows["history"], [f.name for f in self.schema.history])
        momentum = config.batch_norm_momentum
        interest = TargetInterest(
            config.attention_hidden, momentum, config.softmax, self.dtype, name="attention"
        )
        v_BxMxE = interest(q_BxMxC, k_BxLxC, e_BxLxE, masking.candidate_visibility(batch), train)
        head = Head(self.schema, config.head, momentum, dtype=self.dtype, name="head")
        return Output(head(v_BxMxE, rows, batch, train))
