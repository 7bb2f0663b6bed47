"""TWIN, the Two-stage Interest Network (KDD 2023, arXiv 2302.02352): search by the attention's own scores.

An event's features are split in those it has by itself (inherent, K_h) and those of its meeting with the user
(cross, K_c), of which each gives one scalar a head. For every head

    α = (K_h W_h)(q W_q)ᵀ / sqrt(Dh) + (K_c W_c) β
    v = softmax(α over the K events retrieved) K W_v,  K = all features

and the heads side by side times W_o go to the shared head. The events of the highest α are retrieved: search
and attention have the same parameters. There are no history states, so a row may hold any candidates, of one
request or of different times.

This project's decisions: inherent features are those that candidate and history share, and q is the
candidate's; cross features are the time gap (buckets of SUAN's time bias, with a row for unknown times), the
position counted back from the candidate, and the features that history alone has (the action); α is float32;
one retrieved set for all heads, by the sum of their α; of equal sums the most recent is taken; the search
takes no gradient, for the attention's is the same on the events that count; heads are as wide as a feature's
embedding; no short branch; β starts at 1.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.layers import masking, time_buckets
from suan_jax.layers.bias import lookup, small_table
from suan_jax.layers.embedding import Rows
from suan_jax.layers.head import Head, head_macs
from suan_jax.layers.retrieval import Retrieved, gather_events, top_k
from suan_jax.layers.target_attention import (
    TargetPool,
    TargetQuery,
    pool_macs,
    query_macs,
    target_scores,
    time_gaps,
)
from suan_jax.layers.tokens import concat, shared_names
from suan_jax.models.model import ModelDefinition, Output, register
from suan_jax.models.size import check_only_grade, check_sizes
from suan_jax.schema import Schema


def cross_names(schema: Schema) -> tuple[str, ...]:
    """Features of an event that the candidate lacks, in the order of `schema.history`."""
    shared = shared_names(schema)
    return tuple(feature.name for feature in schema.history if feature.name not in shared)


@register
@dataclasses.dataclass
class Twin(ModelDefinition):
    """TWIN's settings; it has one grade, 0.

    Attributes:
      k: K, events that a candidate retrieves.
      heads: H, each as wide as a feature's embedding.
    """

    name: str = "twin"
    k: int = 100
    heads: int = 4

    def module(self, schema: Schema, max_len: int) -> nn.Module:
        """See `ModelDefinition`."""
        check_only_grade(self)
        check_sizes(k=self.k, heads=self.heads)
        return TwinModule(self, schema, max_len, self.compute_dtype())

    def across_time_refusal(self) -> str:
        """See `ModelDefinition`."""
        return ""

    def useful_flops(self, schema: Schema, lengths: np.ndarray) -> float:
        """See `ModelDefinition`."""
        row, width = self.embedding_width, self.heads * self.embedding_width
        shared, event = len(shared_names(schema)) * row, len(schema.history) * row
        retrieved = float(np.mean(np.minimum(lengths, self.k)))
        macs = query_macs(shared, shared, width) + (float(np.mean(lengths)) + retrieved) * self.heads * event
        macs += pool_macs(retrieved, event + 2 * row, self.heads, width)
        return 2.0 * (macs + head_macs(schema, width, row, self.head))


class TwinModule(nn.Module):
    """TWIN on gathered rows.

    Attributes:
      config: the settings.
      schema: the log's schema.
      max_len: longest history.
      dtype: dtype of activations.
    """

    config: Twin
    schema: Schema
    max_len: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, rows: Rows, batch: Batch, train: bool) -> Output:
        """Logits of every candidate."""
        config = self.config
        v_BxMxD, _, _ = self.attend(rows, batch)
        head = Head(self.schema, config.head, config.batch_norm_momentum, dtype=self.dtype, name="head")
        return Output(head(v_BxMxD, rows, batch, train))

    def attend(self, rows: Rows, batch: Batch) -> tuple[jax.Array, Retrieved, jax.Array]:
        """What the heads get, (B, M, H·d); the events retrieved; and their α, (B, M, H, K) float32."""
        config, row = self.config, self.config.embedding_width
        inherent, cross = shared_names(self.schema), cross_names(self.schema)
        split = len(inherent) * row
        query = TargetQuery(config.heads, row, split, name="query")
        q_BxMxHxC = query(concat(rows["candidate"], inherent)) * row**-0.5

        gap_table = small_table(self, "gap_table", (time_buckets.TABLE_ROWS, row))
        position_table = small_table(self, "position_table", (self.max_len + 1, row))
        shape = (2 + len(cross), row, config.heads)
        init = nn.initializers.lecun_normal(in_axis=1, out_axis=2, batch_axis=0)
        init = nn.with_logical_partitioning(init, (None, "embed", "heads"))
        kernel = self.param("cross", init, shape, jnp.float32)
        init = nn.with_logical_partitioning(nn.initializers.ones_init(), (None, "heads"))
        kernel = kernel * self.param("beta", init, (shape[0], shape[2]), jnp.float32)[:, None]
        # (K_c W_c) β of what comes from a small table: one scalar a row and head, read per event.
        gap_scalar = jnp.matmul(gap_table, kernel[0], precision="highest")
        position_scalar = jnp.matmul(position_table, kernel[1], precision="highest")
        own_kernel = kernel[2:].reshape(-1, config.heads)

        def scores(x_BxMxNxE: jax.Array, gap_BxMxN: jax.Array, back_BxMxN: jax.Array) -> jax.Array:
            cross_BxMxNxH = jnp.matmul(x_BxMxNxE[..., split:], own_kernel, precision="highest")
            cross_BxMxNxH += lookup(gap_scalar, gap_BxMxN) + lookup(position_scalar, back_BxMxN)
            return target_scores(q_BxMxHxC, x_BxMxNxE[..., :split]) + jnp.swapaxes(cross_BxMxNxH, -1, -2)

        x_BxLxE = concat(rows["history"], (*inherent, *cross))
        gap_BxMxL = time_gaps(batch)
        back_BxMxL = batch.visible[:, :, None] - jnp.arange(x_BxLxE.shape[1], dtype=jnp.int32)
        summed_BxMxL = scores(x_BxLxE[:, None], gap_BxMxL, back_BxMxL).sum(2)
        found = top_k(summed_BxMxL, masking.candidate_visibility(batch), config.k)
        gap_BxMxK, back_BxMxK = (
            jnp.take_along_axis(x, found.index_BxMxK, axis=-1, mode="clip") for x in (gap_BxMxL, back_BxMxL)
        )
        x_BxMxKxE = gather_events(x_BxLxE, found.index_BxMxK)
        score_BxMxHxK = scores(x_BxMxKxE, gap_BxMxK, back_BxMxK)
        cross_rows = lookup(gap_table, gap_BxMxK), lookup(position_table, back_BxMxK)
        x_BxMxKxE = jnp.concatenate([x_BxMxKxE, *cross_rows], axis=-1)
        pool = TargetPool(config.heads, row, self.dtype, name="pool")
        return pool(score_BxMxHxK, found.mask_BxMxK, x_BxMxKxE), found, score_BxMxHxK
