"""SUAN, the Stacked Unified Attention Network (RecSys 2025, arXiv 2508.15326).

A behaviour is one token, the concatenation of its F feature embeddings (D = F·d); the candidate is the last
token; the P profile features are tokens of width d beside the sequence. One Unified Attention Block, in which
each residual starts at the norm's output:

    x0 = RMSNorm1(x)
    x1 = RMSNorm2(SelfAttention(x0) + x0)
    c  = CrossAttention(q = x1, kv = profile)
    f  = DualAlignment(x1, c)
    x2 = RMSNorm3(f + x1)
    y  = SwiGLU(x2) + x2

Self-attention is causal, softmax(q kᵀ / sqrt(Dh) + B_pos + B_time), with
B_pos[i, j] = w_pos[i − j + T − 1] on positions counted back from the candidate and
B_time[i, j] = w_time[bucket(|t_i − t_j|)]: one scalar for all heads and all layers. A block has about
15.75·D² + 26·D parameters. The last state of a candidate goes to the shared head.

From the released code: the tokens, the block, its norms, masks, biases and initial values, SwiGLU of hidden
3·D, the head, the pool over all tokens (`pool = "all"`), BatchNorm on the logit (`batch_norm_logit`), and
grade 0: 2 layers, 2 heads, d = 8.
This project's decisions: `pool = "history"` by default, so that one request's candidates share the states of
their history, and "causal", so that candidates of different times can; cross-attention scaled by 1/sqrt(Dh)
(the release divides by sqrt(P)) and masked where a profile value is missing; the token's time as hour of the
week; one more row for unknown times; a Dense where D is not F·d; no BatchNorm on the logit by default; the
grades.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.errors import UserError
from suan_jax.layers import history_cache, masking, time_buckets
from suan_jax.layers.alignment import POOLS, DualAlignment
from suan_jax.layers.attention import Attend, MultiHeadAttention, attention
from suan_jax.layers.bias import BiasTable, PositionBias, TimeBias
from suan_jax.layers.cross_attention import CrossAttention, cross_attention_macs
from suan_jax.layers.embedding import Rows
from suan_jax.layers.feed_forward import SwiGLU
from suan_jax.layers.fused_attention import check_choice, fused_softmax, fuses, relation
from suan_jax.layers.head import Head, head_macs
from suan_jax.layers.norms import RMSNorm
from suan_jax.layers.sparse_attention import candidate_attention, sparse_bias
from suan_jax.layers.sparse_pattern import Parts, Pattern, sparse_pattern
from suan_jax.layers.stack import stacked
from suan_jax.layers.tokens import TokenEmbedding, profile_tokens, token_macs
from suan_jax.layers.unpacking import one_candidate_per_row
from suan_jax.models.model import TRAINING_PASSES, Output, register
from suan_jax.models.size import Size, SizedDefinition
from suan_jax.schema import Schema

# This project's own grades: the paper's table is not public. Body parameters from 5e4 to 1e9.
GRADES = (
    Size(2, None, 2),  # the released size
    Size(2, 128, 4),
    Size(4, 256, 4),
    Size(8, 512, 8),
    Size(12, 1024, 16),
    Size(16, 2048, 16),
)


@register
@dataclasses.dataclass
class Suan(SizedDefinition):
    """SUAN's settings, beside its sizes.

    Attributes:
      pool: what dual alignment pools over: "history", "all" (as released) or "causal".
      absolute_position: whether tokens carry a learned position; False lets rows hold candidates of
        different times.
      position_bias: whether B_pos exists.
      time_bias: whether B_time exists.
      rms_norm: whether the norms exist.
      batch_norm_logit: whether BatchNorm follows the logit.
      remat: whether blocks are computed again in the backward pass, to save memory.
      attention: "fused" for self-attention as one kernel for NVIDIA GPUs, "plain" for XLA's, "auto" for
        the kernel where it can run, in bfloat16.
    """

    grades = GRADES
    name: str = "suan"
    pool: str = "history"
    absolute_position: bool = True
    position_bias: bool = True
    time_bias: bool = True
    rms_norm: bool = True
    batch_norm_logit: bool = False
    remat: bool = False
    attention: str = "auto"

    def module(self, schema: Schema, max_len: int) -> nn.Module:
        """See `ModelDefinition`."""
        if self.pool not in POOLS:
            raise UserError(f"config.model.pool is {self.pool!r}, expected one of {', '.join(POOLS)}")
        check_choice(self.attention)
        return SuanModule(self, schema, self.size(schema), max_len, self.compute_dtype())

    def across_time_refusal(self) -> str:
        """See `ModelDefinition`."""
        if self.pool != "causal":
            return f"config.model.pool is {self.pool!r}, whose history states depend on the candidate's time"
        if self.absolute_position:
            return "config.model.absolute_position is True, and positions are counted back from the candidate"
        return ""

    def cache_refusal(self) -> str:
        """See `ModelDefinition`."""
        if self.pool == "all":
            return "config.model.pool is 'all', whose history states depend on the candidate"
        return ""

    def cache_moment_refusal(self) -> str:
        """See `ModelDefinition`."""
        return ""

    def flops_per_example(self, schema: Schema, max_len: int) -> float:
        """See `ModelDefinition`."""
        return 2.0 * self._macs(schema, max_len + 1, self.computed_pairs(max_len))

    def training_flops_per_row(self, schema: Schema, max_len: int, candidates: int) -> float:
        """See `ModelDefinition`."""
        if self.pool == "all":
            return super().training_flops_per_row(schema, max_len, candidates)
        pairs = self.computed_pairs(max_len, candidates)
        return TRAINING_PASSES * 2.0 * self._macs(schema, max_len + candidates, pairs, candidates)

    def useful_flops(self, schema: Schema, lengths: np.ndarray) -> float:
        """See `ModelDefinition`."""
        lengths = np.asarray(lengths, np.int64)
        return 2.0 * float(np.mean(self._macs(schema, lengths + 1, self.visible_pairs(lengths))))

    def computed_pairs(self, max_len: int, candidates: int = 1) -> int:
        """Pairs of tokens that self-attention scores in a row of `max_len` events and so many candidates."""
        return (max_len + candidates) ** 2

    def visible_pairs(self, lengths: np.ndarray) -> np.ndarray:
        """Those of them in which one token sees the other, for histories of `lengths` events."""
        return (lengths + 1) * (lengths + 2) // 2

    def _macs(
        self, schema: Schema, tokens: np.ndarray | int, pairs: np.ndarray | int, candidates: int = 1
    ) -> np.ndarray | int:
        """Multiply-adds of a row of so many tokens, the candidates included, and attended pairs."""
        size, row, profiles = self.size(schema), self.embedding_width, len(schema.profile)
        width = size.width
        squeezed = max(width // 4, 1)
        pooled = tokens if self.pool == "causal" else 1
        block = tokens * 4 * width**2 + 2 * pairs * width  # self-attention
        if profiles:
            block = block + cross_attention_macs(tokens, profiles, width, row, size.heads)
        block = block + 3 * pooled * width * squeezed + tokens * 9 * width**2  # alignment, SwiGLU
        embedding = token_macs(schema, tokens, row, width, candidates)
        return embedding + size.layers * block + candidates * head_macs(schema, width, row, self.head)


class UnifiedAttentionBlock(nn.Module):
    """One block of the module docstring, in the form that `stacked` takes.

    Attributes:
      heads: H.
      pool: see `Suan`.
      rms_norm: see `Suan`.
      dtype: dtype of the products.
      attend: the self-attention.
    """

    heads: int
    pool: str
    rms_norm: bool
    dtype: jnp.dtype
    attend: Attend = attention

    @nn.compact
    def __call__(
        self,
        x_BxTxD: jax.Array,
        bias: Any,
        mask: Any,
        profile_BxPxd: jax.Array,
        profile_mask_BxP: jax.Array,
        batch: Batch,
    ) -> tuple[jax.Array, None]:
        """The next states of the tokens, and nothing to stack; `attend` says what `bias` and `mask` are."""

        def norm(index: int, x: jax.Array) -> jax.Array:
            return RMSNorm(name=f"norm_{index}")(x) if self.rms_norm else x

        def self_attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: Any, mask: Any) -> jax.Array:
            if history_cache.reads(self):
                events = [history_cache.kept(self, name) for name in ("key", "value")]
                return candidate_attention(q, k, v, *events, bias, mask)
            length = batch.history_mask.shape[1]
            history_cache.keep(self, key=k[:, :length], value=v[:, :length])
            return self.attend(q, k, v, bias, mask)

        attend = MultiHeadAttention(self.heads, self.dtype, self_attend, name="attention")
        x0 = norm(1, x_BxTxD)
        x1 = norm(2, attend(x0, x0, bias, mask) + x0)
        c = jnp.zeros_like(x1)
        if profile_BxPxd.shape[1]:
            c = CrossAttention(self.heads, self.dtype, name="cross_attention")(
                x1, profile_BxPxd, profile_mask_BxP
            )
        f = DualAlignment(self.pool, self.dtype, name="alignment")(x1, c, batch)
        x2 = norm(3, f + x1)
        return SwiGLU(3 * x2.shape[-1], self.dtype, name="feed_forward")(x2) + x2, None


class SuanModule(nn.Module):
    """SUAN on gathered rows.

    Attributes:
      config: the settings.
      schema: the log's schema.
      size: the settings' sizes for that schema.
      max_len: longest history.
      dtype: dtype of activations.
    """

    config: Suan
    schema: Schema
    size: Size
    max_len: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, rows: Rows, batch: Batch, train: bool) -> Output:
        """Logits of every candidate."""
        config = self.config
        if config.pool == "all" and batch.candidate_mask.shape[1] != 1:
            states_NxTxD = self.states(*one_candidate_per_row(rows, batch))
            state_BxMxD = states_NxTxD[:, -1].reshape(*batch.candidate_mask.shape, -1)
        else:
            state_BxMxD = self.states(rows, batch)[:, -batch.candidate_mask.shape[1] :]
        momentum = config.batch_norm_momentum
        head = Head(self.schema, config.head, momentum, config.batch_norm_logit, self.dtype, name="head")
        return Output(head(state_BxMxD, rows, batch, train))

    def states(self, rows: Rows, batch: Batch) -> jax.Array:
        """The last states of all tokens, (B, T, D); of the candidates alone if the history was kept."""
        config, size = self.config, self.size
        if history_cache.reads(self):
            attend, bias, mask = attention, *self.candidate_attention(batch)
            batch = history_cache.without_events(batch)
        else:
            attend, bias, mask = self.self_attention(batch)
        x_BxTxD = TokenEmbedding(
            self.schema,
            size.width,
            config.embedding_width,
            self.max_len + 1 if config.absolute_position else 0,
            self.dtype,
            name="tokens",
        )(rows, batch)
        blocks = stacked(UnifiedAttentionBlock, size.layers, config.remat, arguments=5)(
            size.heads, config.pool, config.rms_norm, self.dtype, attend, name="blocks"
        )
        profile_BxPxd, profile_mask_BxP = profile_tokens(self.schema, rows, batch)
        return blocks(x_BxTxD, bias, mask, profile_BxPxd.astype(self.dtype), profile_mask_BxP, batch)[0]

    def self_attention(self, batch: Batch) -> tuple[Attend, Any, Any]:
        """The self-attention of every block, and the bias and the mask that it takes.

        Both are made outside the scan: one bias serves every layer, and is differentiated once.
        """
        config, size = self.config, self.size
        if fuses(config.attention, size.width // size.heads, self.dtype):
            return fused_softmax, self.bias_tables(), relation(batch)
        biases = []
        if config.position_bias:
            biases.append(PositionBias(self.max_len + 1, name="position_bias")(batch))
        if config.time_bias:
            tokens = masking.token_age(batch), masking.token_timed(batch)
            biases.append(TimeBias(name="time_bias")(time_buckets.pair_buckets(*tokens, *tokens)))
        bias_BxTxT = sum(biases).astype(self.dtype) if biases else None
        return attention, bias_BxTxT, masking.visibility(batch)

    def candidate_attention(self, batch: Batch) -> tuple[Parts, Pattern]:
        """Bias and pattern of a request's candidates, for events of which keys and values were kept.

        They are made anew for each request, as the time between the candidates and the events is another.
        """
        one = history_cache.first_candidate(batch)
        pattern = sparse_pattern(one, *self.reach(), one_request=True, events_attend=False)
        return sparse_bias(pattern, one, *self.bias_tables(), self.dtype), pattern

    def reach(self) -> tuple[int, int]:
        """Window and dilation of the self-attention, as of `sparse_pattern`."""
        return self.max_len + 1, 1

    def bias_tables(self) -> tuple[jax.Array | None, jax.Array | None]:
        """The weights of the position bias and of the time bias, None for one that does not exist."""
        config, position, time = self.config, None, None
        if config.position_bias:
            position = BiasTable(2 * self.max_len + 1, name="position_bias")()
        if config.time_bias:
            time = BiasTable(time_buckets.TABLE_ROWS, name="time_bias")()
        return position, time
