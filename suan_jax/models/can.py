"""CAN, the Co-Action Network (WSDM 2022, arXiv 2011.05625).

A candidate's id owns a table row of 160 numbers, two bias-free layers W1 (16 × 8) and W2 (8 × 4); an event's
id owns a row h of 16 in another table. For the orders o = 1, 2, 3,

    z1 = tanh(h^o W1),  z2 = z1 W2,  out_o = [z1 ‖ z2]

summed over the events that the candidate sees: 36 numbers for a pair of features, which go to the head beside
the base model's interest. There are no history states, so a row may hold any candidates, of one request or of
different times.

This project's decisions: pairs are item with item and, where the log has one, category with category; the
base is DIN, or nothing (`base = "dnn"`); the rows of the co-action start at N(0, 0.01²) whatever the other
tables do, for tanh saturates on large ones; they count as embedding parameters, and the shared head does not
read them.
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
from suan_jax.layers.embedding import Lookup, Rows, feature_lookups
from suan_jax.layers.head import Head, head_macs
from suan_jax.layers.interest import TargetInterest, check_hidden, interest_macs
from suan_jax.layers.tokens import concat, shared_names
from suan_jax.models.model import ModelDefinition, Output, register
from suan_jax.models.size import check_only_grade
from suan_jax.schema import Schema

BASES = ("din", "dnn")

INPUT, HIDDEN, OUTPUT, ORDERS = 16, 8, 4, 3
WEIGHTS = INPUT * HIDDEN + HIDDEN * OUTPUT
INITIAL_SCALE = 0.01


def pair_names(schema: Schema) -> tuple[str, ...]:
    """The features whose ids act on one another, in history and candidate."""
    return tuple(name for name in (schema.item, schema.category) if name is not None)


@register
@dataclasses.dataclass
class Can(ModelDefinition):
    """CAN's settings; it has one grade, 0.

    Attributes:
      base: what gives the interest beside the co-action: "din", or "dnn" for none.
      attention_hidden: widths of the hidden layers of DIN's attention.
    """

    name: str = "can"
    base: str = "din"
    attention_hidden: tuple[int, ...] = (80, 40)

    def module(self, schema: Schema, max_len: int) -> nn.Module:
        """See `ModelDefinition`."""
        check_only_grade(self)
        if self.base not in BASES:
            raise UserError(f"config.model.base is {self.base!r}, expected one of {', '.join(BASES)}")
        check_hidden(self.attention_hidden)
        return CanModule(self, schema, self.compute_dtype())

    def lookups(self, schema: Schema) -> tuple[Lookup, ...]:
        """See `ModelDefinition`; those of the co-action read tables of their own."""
        plain = tuple(
            lookup
            for lookup in feature_lookups(schema, self.embedding_width)
            if lookup.group != "history" or self.base == "din"  # nothing else reads them
        )
        own = tuple(
            Lookup(
                name=f"co_action_{feature.name}",
                group=group,
                feature=feature.name,
                table=f"co_action_{feature.name}_{group}",
                vocabulary=feature.table,
                rows=schema.tables[feature.table],
                width=width,
                scale=INITIAL_SCALE,
            )
            for group, width in (("history", INPUT), ("candidate", WEIGHTS))
            for feature in schema.group(group)
            if feature.name in pair_names(schema)
        )
        return plain + own

    def across_time_refusal(self) -> str:
        """See `ModelDefinition`."""
        return ""

    def useful_flops(self, schema: Schema, lengths: np.ndarray) -> float:
        """See `ModelDefinition`."""
        events, row, pairs = float(np.mean(lengths)), self.embedding_width, len(pair_names(schema))
        # Each order's first layer and its sum, for every event; the second layer once, on the sum.
        macs = pairs * ORDERS * (events * (INPUT + 1) * HIDDEN + HIDDEN * OUTPUT)
        state = pairs * ORDERS * (HIDDEN + OUTPUT)
        if self.base == "din":
            shared, features = len(shared_names(schema)) * row, len(schema.history) * row
            macs += interest_macs(events, shared, features, self.attention_hidden)
            state += features
        return 2.0 * (macs + head_macs(schema, state, row, self.head))


def co_action(weights_BxMxW: jax.Array, h_BxLxI: jax.Array, mask_BxMxL: jax.Array) -> jax.Array:
    """The sums of [z1 ‖ z2] of the module docstring over the events that `mask` allows, order after order.

    Args:
      weights_BxMxW: the candidates' layers, W1 (I × J) and then W2 (J × P), row by row.
      h_BxLxI: the events' rows; O of their powers are taken.
      mask_BxMxL: True where a candidate sees an event.

    Returns:
      (B, M, 36) in the dtype of `h`; zero where a candidate sees nothing.
    """
    size = weights_BxMxW.shape[:2]
    w1_BxMxIxJ = weights_BxMxW[:, :, : INPUT * HIDDEN].reshape(*size, INPUT, HIDDEN)
    w2_BxMxJxP = weights_BxMxW[:, :, INPUT * HIDDEN :].reshape(*size, HIDDEN, OUTPUT)
    powers_BxLxOxI = jnp.stack([h_BxLxI**order for order in range(1, ORDERS + 1)], axis=2)
    z1_BxMxLxOxJ = jnp.tanh(jnp.einsum("bloi,bmij->bmloj", powers_BxLxOxI, w1_BxMxIxJ))
    sum_BxMxOxJ = jnp.einsum("bml,bmloj->bmoj", mask_BxMxL.astype(h_BxLxI.dtype), z1_BxMxLxOxJ)
    # The second layer is linear: it is applied to the sum, and no event has a z2 of its own.
    out_BxMxOxP = jnp.einsum("bmoj,bmjp->bmop", sum_BxMxOxJ, w2_BxMxJxP)
    return jnp.concatenate([sum_BxMxOxJ, out_BxMxOxP], axis=-1).reshape(*size, -1)


class CanModule(nn.Module):
    """CAN on gathered rows.

    Attributes:
      config: the settings.
      schema: the log's schema.
      dtype: dtype of activations.
    """

    config: Can
    schema: Schema
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, rows: Rows, batch: Batch, train: bool) -> Output:
        """Logits of every candidate."""
        config, mask_BxMxL = self.config, masking.candidate_visibility(batch)
        momentum = config.batch_norm_momentum
        history = {name: value.astype(self.dtype) for name, value in rows["history"].items()}
        candidate = {name: value.astype(self.dtype) for name, value in rows["candidate"].items()}
        parts = [
            co_action(candidate[f"co_action_{name}"], history[f"co_action_{name}"], mask_BxMxL)
            for name in pair_names(self.schema)
        ]
        if config.base == "din":
            shared = shared_names(self.schema)
            interest = TargetInterest(config.attention_hidden, momentum, dtype=self.dtype, name="interest")
            q_BxMxC, k_BxLxC = concat(candidate, shared), concat(history, shared)
            e_BxLxE = concat(history, [feature.name for feature in self.schema.history])
            parts.append(interest(q_BxMxC, k_BxLxC, e_BxLxE, mask_BxMxL, train))
        head = Head(self.schema, config.head, momentum, dtype=self.dtype, name="head")
        return Output(head(jnp.concatenate(parts, axis=-1), rows, batch, train))
