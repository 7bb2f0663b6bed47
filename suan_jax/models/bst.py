"""BST, the Behavior Sequence Transformer (DLP-KDD 2019, arXiv 1905.06874).

A token is an event's features beside the embedding of its time gap, pos(v_i) = t(candidate) − t(v_i); the
candidate is the last token, and every token sees every other. One block, post-norm:

    S = LayerNorm(x + MultiHead(x)),  softmax(q kᵀ / sqrt(Dh)), without bias
    y = LayerNorm(S + LeakyReLU(S W1 + b1) W2 + b2)

From the paper: one block of 8 heads at grade 0, and `pool = "flatten"`, all states side by side into the
head, here by position counted back from the candidate, zeros where there is no event, so that padding moves
nothing.
This project's decisions: `pool = "target"` by default, the candidate's state alone, as flatten makes the head
grow with max_len; gaps in SUAN's time buckets, one more row for unknown times, the candidate's own gap 0; the
candidate's own features added through a Dense, as in SUAN; a Dense where D is not F·d + d; a feed-forward of
hidden 4·D and slope 0.01; no dropout; the grades, whose body parameters from grade 1 on are SUAN's within a
sixth. History states depend on the candidate: a row of M candidates costs M rows.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.errors import UserError
from suan_jax.layers import masking, time_buckets
from suan_jax.layers.attention import MultiHeadAttention
from suan_jax.layers.bias import lookup, small_table
from suan_jax.layers.dense import Dense
from suan_jax.layers.embedding import Rows
from suan_jax.layers.head import Head, head_macs
from suan_jax.layers.norms import LayerNorm
from suan_jax.layers.stack import stacked
from suan_jax.layers.tokens import feature_macs, feature_tokens
from suan_jax.layers.unpacking import one_candidate_per_row
from suan_jax.models.model import Output, register
from suan_jax.models.size import Size, SizedDefinition
from suan_jax.schema import Schema

POOLS = ("target", "flatten")

GRADES = (
    Size(1, None, 8),  # the paper's
    Size(3, 128, 4),
    Size(5, 256, 4),
    Size(10, 512, 8),
    Size(16, 1024, 16),
    Size(21, 2048, 16),
)


@register
@dataclasses.dataclass
class Bst(SizedDefinition):
    """BST's settings, beside its sizes.

    Attributes:
      pool: the state that the head reads: "target", the candidate's, or "flatten", all of them.
      remat: whether blocks are computed again in the backward pass, to save memory.
    """

    grades = GRADES
    name: str = "bst"
    pool: str = "target"
    remat: bool = False

    def features_width(self, schema: Schema) -> int:
        """See `SizedDefinition`; the time gap counts as a feature."""
        return super().features_width(schema) + self.embedding_width

    def module(self, schema: Schema, max_len: int) -> nn.Module:
        """See `ModelDefinition`."""
        if self.pool not in POOLS:
            raise UserError(f"config.model.pool is {self.pool!r}, expected one of {', '.join(POOLS)}")
        return BstModule(self, schema, self.size(schema), max_len, self.compute_dtype())

    def across_time_refusal(self) -> str:
        """See `ModelDefinition`."""
        return "config.model.name is 'bst', whose history states depend on the candidate"

    def cache_refusal(self) -> str:
        """See `ModelDefinition`."""
        return "config.model.name is 'bst', whose history states depend on the candidate"

    def useful_flops(self, schema: Schema, lengths: np.ndarray) -> float:
        """See `ModelDefinition`."""
        size, row = self.size(schema), self.embedding_width
        tokens = np.asarray(lengths, np.float64) + 1
        features, width = self.features_width(schema), size.width
        embedding = feature_macs(schema, tokens, row, features - row)
        if width != features:
            embedding = embedding + tokens * features * width
        block = tokens * 12 * width**2 + 2 * tokens**2 * width
        state = width if self.pool == "target" else float(np.mean(tokens)) * width
        macs = float(np.mean(embedding + size.layers * block))
        return 2.0 * (macs + head_macs(schema, state, row, self.head))


class GapTokens(nn.Module):
    """Features beside the embedding of the time gap to the row's one candidate.

    Attributes:
      schema: the log's schema.
      width: D; a Dense follows if it is not F·d + d.
      row_width: d, the width of a feature's embedding and of a gap's.
      dtype: dtype of the products and the result.
    """

    schema: Schema
    width: int
    row_width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, rows: Rows, batch: Batch) -> jax.Array:
        """The tokens of a batch of one candidate a row, (B, T, D)."""
        features = len(self.schema.history) * self.row_width
        x_BxTxF = feature_tokens(self.schema, rows, batch, features, self.dtype)
        timed_Bx1 = jnp.ones_like(batch.candidate_mask)
        keys = masking.token_age(batch), masking.token_timed(batch)
        gap_BxT = time_buckets.pair_buckets(batch.candidate_age, timed_Bx1, *keys)[:, 0]
        table = small_table(self, "gap_table", (time_buckets.TABLE_ROWS, self.row_width))
        x_BxTxD = jnp.concatenate([x_BxTxF, lookup(table, gap_BxT).astype(self.dtype)], axis=-1)
        if x_BxTxD.shape[-1] == self.width:
            return x_BxTxD
        return Dense(self.width, (None, "embed"), dtype=self.dtype, name="project")(x_BxTxD)


class TransformerBlock(nn.Module):
    """One block of the module docstring, in the form that `stacked` takes.

    Attributes:
      heads: H.
      dtype: dtype of the products.
    """

    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, mask_Bx1xT: jax.Array) -> tuple[jax.Array, None]:
        """The next states of the tokens, and nothing to stack."""
        width = x_BxTxD.shape[-1]
        attention = MultiHeadAttention(self.heads, self.dtype, name="attention")
        x_BxTxD = LayerNorm(name="norm_1")(x_BxTxD + attention(x_BxTxD, x_BxTxD, None, mask_Bx1xT))
        hidden = Dense(4 * width, ("embed", "mlp"), dtype=self.dtype, name="hidden")(x_BxTxD)
        out = Dense(width, ("mlp", "embed"), dtype=self.dtype, name="out")
        return LayerNorm(name="norm_2")(x_BxTxD + out(jax.nn.leaky_relu(hidden, 0.01))), None


def flatten_states(states_BxTxD: jax.Array, batch: Batch, positions: int) -> jax.Array:
    """The candidate's state and those of the events it sees, the most recent first, side by side.

    Args:
      states_BxTxD: states of a batch of one candidate a row.
      batch: that batch.
      positions: P = max_len + 1, whatever the padded length.

    Returns:
      (B, P·D); zero where there is no event.
    """
    seen_Bx1 = masking.seen_length(batch)[:, None]
    back = jnp.arange(positions)
    slot_BxP = jnp.where(back == 0, batch.history_mask.shape[1], seen_Bx1 - back)
    taken_BxPxD = jnp.take_along_axis(states_BxTxD, slot_BxP[:, :, None], axis=1, mode="clip")
    taken_BxPxD = jnp.where((back <= seen_Bx1)[:, :, None], taken_BxPxD, 0)
    return taken_BxPxD.reshape(states_BxTxD.shape[0], -1)


class BstModule(nn.Module):
    """BST on gathered rows.

    Attributes:
      config: the settings.
      schema: the log's schema.
      size: the settings' sizes for that schema.
      max_len: longest history.
      dtype: dtype of activations.
    """

    config: Bst
    schema: Schema
    size: Size
    max_len: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, rows: Rows, batch: Batch, train: bool) -> Output:
        """Logits of every candidate, each in a row of its own: N = B·M of them."""
        config = self.config
        single_rows, single = one_candidate_per_row(rows, batch)
        states_NxTxD = self.states(single_rows, single)
        if config.pool == "target":
            state_NxS = states_NxTxD[:, -1]
        else:
            state_NxS = flatten_states(states_NxTxD, single, self.max_len + 1)
        head = Head(self.schema, config.head, config.batch_norm_momentum, dtype=self.dtype, name="head")
        return Output(head(state_NxS.reshape(*batch.candidate_mask.shape, -1), rows, batch, train))

    def states(self, rows: Rows, batch: Batch) -> jax.Array:
        """The last states of all tokens of a batch of one candidate a row, (B, T, D)."""
        config, size = self.config, self.size
        tokens = GapTokens(self.schema, size.width, config.embedding_width, self.dtype, name="tokens")
        valid_BxT = jnp.concatenate([masking.seen_events(batch), batch.candidate_mask], axis=1)
        blocks = stacked(TransformerBlock, size.layers, config.remat, arguments=1)
        return blocks(size.heads, self.dtype, name="blocks")(tokens(rows, batch), valid_BxT[:, None])[0]
