"""HSTU, the Hierarchical Sequential Transduction Unit (ICML 2024, arXiv 2402.17152), as a ranker.

The candidate is the last token; its last state goes to the shared head. One layer, of about 5·D² parameters
(equations 2 to 4, in the form of the paper's research experiments):

    [u | v | q | k] = silu(LN(x) W)
    A = silu(q kᵀ + rab) / n · mask
    y = x + (u ⊙ LN(A v)) W_o

without softmax and without 1/sqrt(Dh), causal, n = max_len + 1. In every layer, shared by its heads,
rab[i, j] = w_pos[i − j + n − 1] + w_time[bucket(|t_{i+1} − t_j|)] on positions counted back from the
candidate: row i reads the time of the token after it, for that is the time at which it predicts.

This project's decisions: the tokens are SUAN's, so that a comparison compares layers, and so are the time
buckets, with one more weight for unknown times; the last event that the candidates see takes the candidates'
time as its next, and a candidate, which no token follows, its own, so that rows of one request are exact and
rows across time are not; n is the config's, so that no logit depends on padding; a pad is masked after the
silu; LayerNorms have γ and β and the products no bias; the grades, whose body parameters are SUAN's within a
tenth: a layer has a third of the parameters of SUAN's block, so there are more of them, or they are wider.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.layers import history_cache, masking, time_buckets
from suan_jax.layers.bias import BiasTable, PositionBias, TimeBias
from suan_jax.layers.dense import Dense
from suan_jax.layers.embedding import Rows
from suan_jax.layers.fused_attention import Relation, check_choice, fused_silu, fuses, relation
from suan_jax.layers.head import Head, head_macs
from suan_jax.layers.norms import LayerNorm
from suan_jax.layers.stack import stacked
from suan_jax.layers.tokens import TokenEmbedding, token_macs
from suan_jax.models.model import TRAINING_PASSES, Output, register
from suan_jax.models.size import Size, SizedDefinition
from suan_jax.schema import Schema

GRADES = (
    Size(6, None, 2),
    Size(3, 192, 4),
    Size(6, 384, 4),
    Size(11, 768, 8),
    Size(17, 1536, 16),
    Size(22, 3072, 16),
)


@register
@dataclasses.dataclass
class Hstu(SizedDefinition):
    """HSTU's settings, beside its sizes.

    Attributes:
      absolute_position: whether tokens carry a learned position.
      remat: whether layers are computed again in the backward pass, to save memory.
      attention: "fused" for self-attention as one kernel for NVIDIA GPUs, "plain" for XLA's, "auto" for
        the kernel where it can run, in bfloat16.
    """

    grades = GRADES
    name: str = "hstu"
    absolute_position: bool = True
    remat: bool = False
    attention: str = "auto"

    def module(self, schema: Schema, max_len: int) -> nn.Module:
        """See `ModelDefinition`."""
        check_choice(self.attention)
        return HstuModule(self, schema, self.size(schema), max_len, self.compute_dtype())

    def across_time_refusal(self) -> str:
        """See `ModelDefinition`."""
        return "config.model.name is 'hstu', whose last history state depends on the candidate's time"

    def cache_refusal(self) -> str:
        """See `ModelDefinition`."""
        return ""

    def cache_moment_refusal(self) -> str:
        """See `ModelDefinition`."""
        return "config.model.name is 'hstu', whose last history state depends on the time of the request"

    def flops_per_example(self, schema: Schema, max_len: int) -> float:
        """See `ModelDefinition`."""
        return 2.0 * self._macs(schema, max_len + 1, (max_len + 1) ** 2)

    def training_flops_per_row(self, schema: Schema, max_len: int, candidates: int) -> float:
        """See `ModelDefinition`."""
        tokens = max_len + candidates
        return TRAINING_PASSES * 2.0 * self._macs(schema, tokens, tokens**2, candidates)

    def useful_flops(self, schema: Schema, lengths: np.ndarray) -> float:
        """See `ModelDefinition`."""
        tokens = np.asarray(lengths, np.float64) + 1
        return 2.0 * float(np.mean(self._macs(schema, tokens, tokens * (tokens + 1) / 2)))

    def _macs(
        self, schema: Schema, tokens: np.ndarray | int, pairs: np.ndarray | int, candidates: int = 1
    ) -> np.ndarray | int:
        """Multiply-adds of a row of so many tokens, the candidates included, and attended pairs."""
        size, row = self.size(schema), self.embedding_width
        layer = tokens * 5 * size.width**2 + 2 * pairs * size.width
        embedding = token_macs(schema, tokens, row, size.width, candidates)
        return embedding + size.layers * layer + candidates * head_macs(schema, size.width, row, self.head)


def next_time(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """The time of the token after each token.

    After the last event that the row's candidates see come the candidates, all at one time; after a candidate
    comes nothing, and it takes its own time.

    Returns:
      Its age, (B, T) int32 seconds before the row's reference time, and (B, T) bool, False where unknown.
    """
    age_Bx1 = masking.request_age(batch)
    after = jnp.arange(1, batch.history_mask.shape[1] + 1)
    last_BxL = after >= masking.seen_length(batch)[:, None]
    history_age = jnp.where(last_BxL, age_Bx1, jnp.roll(batch.history_age, -1, axis=1))
    history_timed = last_BxL | jnp.roll(batch.history_timed, -1, axis=1)
    return (
        jnp.concatenate([history_age, batch.candidate_age], axis=1),
        jnp.concatenate([history_timed, jnp.ones_like(batch.candidate_mask)], axis=1),
    )


class SiluAttention(nn.Module):
    """Σ_j mask · silu(q kᵀ + rab) / n · v.

    Attributes:
      max_tokens: n.
    """

    max_tokens: int

    @nn.compact
    def __call__(
        self,
        q_BxTxHxDh: jax.Array,
        k_BxTxHxDh: jax.Array,
        v_BxTxHxDh: jax.Array,
        bucket_BxTxT: jax.Array,
        mask_BxTxT: jax.Array,
        batch: Batch,
    ) -> jax.Array:
        """(B, T, H, Dh) in the dtype of `v`; zero for a query that sees no key.

        Over candidates alone, buckets and mask are not read: their row was kept with the events.
        """
        if history_cache.reads(self):
            names = ("key", "value", "bias", "own_bias", "mask")
            k, v, bias, own_bias, mask = (history_cache.kept(self, name) for name in names)
            seen = self.weigh("bthd,bshd->bhts", q_BxTxHxDh, k, bias, mask, v.dtype)
            own = self.weigh("bthd,bthd->bth", q_BxTxHxDh, k_BxTxHxDh, own_bias, True, v.dtype)
            return jnp.einsum("bhts,bshd->bthd", seen, v) + own[..., None] * v_BxTxHxDh
        position = PositionBias(self.max_tokens, name="position_bias")(batch)
        bias_BxTxT = position + TimeBias(name="time_bias")(bucket_BxTxT)
        length = batch.history_mask.shape[1]
        history_cache.keep(
            self,
            key=k_BxTxHxDh[:, :length],
            value=v_BxTxHxDh[:, :length],
            bias=bias_BxTxT[:, None, length:, :length],
            own_bias=bias_BxTxT[:, length:, length:],
            mask=mask_BxTxT[:, None, length:, :length],
        )
        bias_Bx1xTxT, mask_Bx1xTxT = bias_BxTxT[:, None], mask_BxTxT[:, None]
        weight_BxHxTxT = self.weigh(
            "bthd,bshd->bhts", q_BxTxHxDh, k_BxTxHxDh, bias_Bx1xTxT, mask_Bx1xTxT, v_BxTxHxDh.dtype
        )
        return jnp.einsum("bhts,bshd->bthd", weight_BxHxTxT, v_BxTxHxDh)

    def weigh(
        self,
        formula: str,
        q: jax.Array,
        k: jax.Array,
        bias: jax.Array,
        mask: jax.Array | bool,
        dtype: jnp.dtype,
    ) -> jax.Array:
        """silu(q kᵀ + bias) / n, zero where masked, of the pairs that an einsum `formula` makes."""
        score = jnp.einsum(formula, q, k, preferred_element_type=jnp.float32)
        return jnp.where(mask, jax.nn.silu(score + bias) / self.max_tokens, 0.0).astype(dtype)


class FusedSiluAttention(nn.Module):
    """The same, with the same parameters, as one kernel.

    Attributes:
      max_tokens: n.
    """

    max_tokens: int

    @nn.compact
    def __call__(
        self, q_BxTxHxDh: jax.Array, k_BxTxHxDh: jax.Array, v_BxTxHxDh: jax.Array, of: Relation
    ) -> jax.Array:
        """(B, T, H, Dh) in the dtype of `v`; zero for a query that sees no key."""
        position = BiasTable(2 * self.max_tokens - 1, name="position_bias")()
        time = BiasTable(time_buckets.TABLE_ROWS, name="time_bias")()
        return fused_silu(q_BxTxHxDh, k_BxTxHxDh, v_BxTxHxDh, (position, time), of, self.max_tokens)


class HstuLayer(nn.Module):
    """One layer of the module docstring, in the form that `stacked` takes.

    Attributes:
      heads: H.
      max_tokens: n.
      dtype: dtype of the products.
    """

    heads: int
    max_tokens: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x_BxTxD: jax.Array, pairs: Relation | tuple[jax.Array, jax.Array], batch: Batch
    ) -> tuple[jax.Array, None]:
        """The next states of the tokens, and nothing to stack.

        `pairs` is the relation of the tokens, for the kernel, or time buckets and mask, both (B, T, T).
        """
        width = x_BxTxD.shape[-1]
        init = nn.initializers.lecun_normal(in_axis=0, out_axis=(1, 2, 3))
        init = nn.with_logical_partitioning(init, ("embed", None, "heads", "kv"))
        kernel = self.param("uvqk", init, (width, 4, self.heads, width // self.heads), jnp.float32)
        x0 = LayerNorm(name="norm")(x_BxTxD)
        u, v, q, k = jax.nn.silu(jnp.einsum("btc,cnhd->nbthd", x0, kernel.astype(self.dtype)))
        if isinstance(pairs, Relation):
            a_BxTxHxDh = FusedSiluAttention(self.max_tokens, name="attention")(q, k, v, pairs)
        else:
            # Kept for the backward pass, scores and biases would be several (B, H, T, T) arrays in every
            # layer.
            attention = nn.remat(SiluAttention, prevent_cse=False)(self.max_tokens, name="attention")
            a_BxTxHxDh = attention(q, k, v, *pairs, batch)
        a_BxTxD = a_BxTxHxDh.reshape(x_BxTxD.shape)
        gated_BxTxD = u.reshape(x_BxTxD.shape) * LayerNorm(name="attention_norm")(a_BxTxD)
        out = Dense(width, ("heads", "embed"), use_bias=False, dtype=self.dtype, name="out")
        return x_BxTxD + out(gated_BxTxD), None


class HstuModule(nn.Module):
    """HSTU on gathered rows.

    Attributes:
      config: the settings.
      schema: the log's schema.
      size: the settings' sizes for that schema.
      max_len: longest history.
      dtype: dtype of activations.
    """

    config: Hstu
    schema: Schema
    size: Size
    max_len: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, rows: Rows, batch: Batch, train: bool) -> Output:
        """Logits of every candidate."""
        config = self.config
        state_BxMxD = self.states(rows, batch)[:, -batch.candidate_mask.shape[1] :]
        head = Head(self.schema, config.head, config.batch_norm_momentum, dtype=self.dtype, name="head")
        return Output(head(state_BxMxD, rows, batch, train))

    def states(self, rows: Rows, batch: Batch) -> jax.Array:
        """The last states of all tokens, (B, T, D); of the candidates alone if the history was kept."""
        config, size = self.config, self.size
        if history_cache.reads(self):
            batch = history_cache.without_events(batch)
        max_tokens = self.max_len + 1
        positions = max_tokens if config.absolute_position else 0
        x_BxTxD = TokenEmbedding(
            self.schema, size.width, config.embedding_width, positions, self.dtype, name="tokens"
        )(rows, batch)
        caching = history_cache.reads(self) or history_cache.writes(self)
        if not caching and fuses(config.attention, size.width // size.heads, self.dtype):
            pairs = relation(batch, next_time(batch))
        else:
            keys = masking.token_age(batch), masking.token_timed(batch)
            # Every layer reads the same buckets, so they are found once; a byte each is enough.
            bucket_BxTxT = time_buckets.pair_buckets(*next_time(batch), *keys).astype(jnp.uint8)
            pairs = bucket_BxTxT, masking.visibility(batch)
        layers = stacked(HstuLayer, size.layers, config.remat, arguments=2)
        return layers(size.heads, max_tokens, self.dtype, name="layers")(x_BxTxD, pairs, batch)[0]
