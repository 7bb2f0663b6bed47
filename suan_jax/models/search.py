"""What models that search a long history share: two interests of each candidate, one from what it retrieved.

    long  = MultiHead(q = candidate, [e_j ‖ emb(time gap_j)] of the events j that the search retrieved)
    short = DIN's interest over the last events
    logit = head([long ‖ short])

A model is its search. There are no history states, so a row may hold any candidates, of one request or of
different times.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.layers.embedding import Rows
from suan_jax.layers.head import Head, head_macs
from suan_jax.layers.interest import TargetInterest, check_hidden, interest_macs
from suan_jax.layers.retrieval import Retrieved, gather_events, last_events
from suan_jax.layers.target_attention import TargetAttention, pool_macs, query_macs, time_gaps
from suan_jax.layers.tokens import concat, shared_names
from suan_jax.models.model import ModelDefinition, Output
from suan_jax.models.size import check_only_grade, check_sizes
from suan_jax.schema import Schema


def history_rows(schema: Schema, rows: Rows) -> jax.Array:
    """All of an event's features side by side, (B, L, E) float32."""
    return concat(rows["history"], [feature.name for feature in schema.history])


def candidate_rows(schema: Schema, rows: Rows) -> jax.Array:
    """All of a candidate's features side by side, (B, M, Q) float32."""
    return concat(rows["candidate"], [feature.name for feature in schema.candidate])


@dataclasses.dataclass
class SearchDefinition(ModelDefinition):
    """Settings of every model with a search and a short branch; one grade, 0.

    Attributes:
      k: K, events that a candidate retrieves.
      recent: last events in the short branch.
      heads: H of the attention over the retrieved events, each as wide as a feature's embedding.
      attention_hidden: widths of the hidden layers of the short branch's MLP.
    """

    k: int = 50
    recent: int = 20
    heads: int = 4
    attention_hidden: tuple[int, ...] = (80, 40)

    def check(self) -> None:
        """Raises UserError if a setting is out of its range."""
        check_only_grade(self)
        check_sizes(k=self.k, recent=self.recent, heads=self.heads)
        check_hidden(self.attention_hidden)

    def across_time_refusal(self) -> str:
        """See `ModelDefinition`."""
        return ""

    def search_macs(self, schema: Schema, events: float) -> float:
        """Multiply-adds of the search of one candidate among so many events."""
        raise NotImplementedError

    def useful_flops(self, schema: Schema, lengths: np.ndarray) -> float:
        """See `ModelDefinition`; what training adds, an auxiliary loss, is left out.

        Every search is taken to find K events where there are so many.
        """
        row, width = self.embedding_width, self.heads * self.embedding_width
        shared, event = len(shared_names(schema)) * row, len(schema.history) * row
        retrieved, last = (float(np.mean(np.minimum(lengths, most))) for most in (self.k, self.recent))
        long = query_macs(len(schema.candidate) * row, event + row, width)
        long += retrieved * self.heads * (event + row) + pool_macs(retrieved, event + row, self.heads, width)
        short = interest_macs(last, shared, event, self.attention_hidden)
        head = head_macs(schema, width + event, row, self.head)
        return 2.0 * (self.search_macs(schema, float(np.mean(lengths))) + long + short + head)


class SearchModule(nn.Module):
    """The two branches and the head, on gathered rows; a model adds `search`.

    Attributes:
      config: the settings.
      schema: the log's schema.
      dtype: dtype of activations.
    """

    config: SearchDefinition
    schema: Schema
    dtype: jnp.dtype

    def search(self, rows: Rows, batch: Batch, train: bool) -> tuple[Retrieved, dict[str, jax.Array]]:
        """What each candidate retrieves, in float32, and the auxiliary losses of the search."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, rows: Rows, batch: Batch, train: bool) -> Output:
        """Logits of every candidate."""
        config, momentum = self.config, self.config.batch_norm_momentum
        found, auxiliary = self.search(rows, batch, train)
        attention = TargetAttention(
            config.heads, config.embedding_width, config.embedding_width, self.dtype, name="attention"
        )
        e_BxLxE = history_rows(self.schema, rows)
        long_BxMxD = attention(
            candidate_rows(self.schema, rows),
            gather_events(e_BxLxE, found.index_BxMxK),
            jnp.take_along_axis(time_gaps(batch), found.index_BxMxK, axis=-1, mode="clip"),
            found.mask_BxMxK,
        )
        short_BxMxE = self.short_interest(e_BxLxE, rows, batch, train)
        head = Head(self.schema, config.head, momentum, dtype=self.dtype, name="head")
        state_BxMxS = jnp.concatenate([long_BxMxD, short_BxMxE], axis=-1)
        return Output(head(state_BxMxS, rows, batch, train), auxiliary=auxiliary)

    def short_interest(self, e_BxLxE: jax.Array, rows: Rows, batch: Batch, train: bool) -> jax.Array:
        """DIN's interest (B, M, E) over the last events that each candidate sees."""
        config, shared = self.config, shared_names(self.schema)
        index_BxMxW, mask_BxMxW = last_events(batch, config.recent)

        # Each candidate has a window of its own: N = B·M rows of one candidate and W events, A wide.
        def own_row(x_BxMxA: jax.Array) -> jax.Array:
            return x_BxMxA.reshape(-1, 1, x_BxMxA.shape[-1])

        def events(x_BxLxA: jax.Array) -> jax.Array:
            taken_BxMxWxA = gather_events(x_BxLxA, index_BxMxW)
            return taken_BxMxWxA.reshape(-1, *taken_BxMxWxA.shape[2:])

        interest = TargetInterest(
            config.attention_hidden, config.batch_norm_momentum, dtype=self.dtype, name="recent"
        )
        q_BxMxC, k_BxLxC = concat(rows["candidate"], shared), concat(rows["history"], shared)
        window = own_row(q_BxMxC), events(k_BxLxC), events(e_BxLxE), own_row(mask_BxMxW)
        v_Nx1xE = interest(*window, train)
        return v_Nx1xE.reshape(*batch.candidate_mask.shape, -1)
