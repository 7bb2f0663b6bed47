"""What a looped model is made of: Entry, a block that may be called several times, Exit.

States are hyper-connected streams H (B, T, N, D) of T = S + M·G tokens: a sequence of S, then the G global
tokens of each of M candidates. All blocks are pre-norm attention and feed-forward, each behind its own
hyper-connection and mixture of experts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from suan_jax.batch import Batch
from suan_jax.layers import history_cache, masking, time_buckets
from suan_jax.layers.attention import MultiHeadAttention, attention
from suan_jax.layers.bias import lookup, small_table
from suan_jax.layers.dense import Dense
from suan_jax.layers.embedding import Rows
from suan_jax.layers.experts import ExpertAttention, ExpertFeedForward, RouterLoad
from suan_jax.layers.hyper_connections import HyperConnection, make_streams, reduce_streams
from suan_jax.layers.norms import RMSNorm
from suan_jax.layers.prefix_attention import group_attention, prefix_attention
from suan_jax.layers.retrieval import gather_events
from suan_jax.layers.tokens import concat
from suan_jax.schema import Schema

Loads = dict[str, RouterLoad]
"""Sublayer, "attention" or "feed_forward", to what its router did."""

ENTRY, LOOP = 0, 2
"""Indices of the first sublayer of Entry and of the Loop, for hyper-connections."""


@dataclasses.dataclass(frozen=True)
class BlockSizes:
    """What all blocks of a model share: H, D_ff, E, k, and the dtype of products."""

    heads: int
    hidden: int
    experts: int
    top_k: int
    dtype: jnp.dtype

    def attention(self) -> ExpertAttention:
        """The attention of a block."""
        return ExpertAttention(self.heads, self.experts, self.top_k, self.dtype, name="attention")

    def feed_forward(self) -> ExpertFeedForward:
        """The feed-forward of a block."""
        return ExpertFeedForward(self.hidden, self.experts, self.top_k, self.dtype, name="feed_forward")


@struct.dataclass
class Tokens:
    """The states of a batch's tokens.

    Attributes:
      h_BxTxNxD: streams, float32.
      valid_BxT: False at pads.
      sequence: S.
      group: G.
    """

    h_BxTxNxD: jax.Array
    valid_BxT: jax.Array
    sequence: int = struct.field(pytree_node=False)
    group: int = struct.field(pytree_node=False)


def connected(
    h: jax.Array, index: int, name: str, layer: Callable[[jax.Array], tuple[jax.Array, RouterLoad]]
) -> tuple[jax.Array, RouterLoad]:
    """One sublayer behind its norm and hyper-connection; for the compact method of a block.

    Args:
      h: streams (..., N, D).
      index: of the sublayer.
      name: of the sublayer.
      layer: from the normed state (..., D) to what is added, and the load of its router.
    """
    u, write = HyperConnection(index, name=f"{name}_connection")(h)
    y, load = layer(RMSNorm(name=f"{name}_norm")(u))
    return write(y), load


class Block(nn.Module):
    """Attention of the sequence to itself, of global tokens to it and their own group; then feed-forward.

    Attributes:
      sizes: of the block.
      index: of its first sublayer.
      sequence: S, of the tokens it is called with.
      group: G, likewise.
    """

    sizes: BlockSizes
    index: int
    sequence: int
    group: int

    @nn.compact
    def __call__(self, h_BxTxNxD: jax.Array, valid_BxT: jax.Array) -> tuple[jax.Array, Loads]:
        """The next streams, and what the routers did."""
        length, valid_BxS = self.sequence, valid_BxT[:, : self.sequence]

        def mix(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            if history_cache.reads(self):
                names = ("key", "value", "valid")
                return group_attention(q, k, v, *(history_cache.kept(self, n) for n in names), self.group)
            if 0 < length < valid_BxT.shape[1]:
                history_cache.keep(self, key=k[:, :length], value=v[:, :length], valid=valid_BxS)
            return prefix_attention(q, k, v, valid_BxS, self.group)

        attend, feed = self.sizes.attention(), self.sizes.feed_forward()
        h, attended = connected(h_BxTxNxD, self.index, "attention", lambda x: attend(x, valid_BxT, mix))
        h, fed = connected(h, self.index + 1, "feed_forward", lambda x: feed(x, valid_BxT))
        return h, {"attention": attended, "feed_forward": fed}


class LoopCall(nn.Module):
    """One call of the Loop: its blocks, one after another, in the form that a scan takes.

    Attributes:
      sizes: of the blocks.
      layers: number of blocks.
      sequence: S.
      group: G.
      keep: whether the streams are also returned to be stacked over calls.
    """

    sizes: BlockSizes
    layers: int
    sequence: int
    group: int
    keep: bool

    @nn.compact
    def __call__(
        self, h_BxTxNxD: jax.Array, valid_BxT: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array | None, dict[str, Loads]]]:
        """The next streams; what to stack: them, and what the routers of each block did."""
        loads = {}
        for layer in range(self.layers):
            name = f"block_{layer}"
            block = Block(self.sizes, LOOP + 2 * layer, self.sequence, self.group, name=name)
            h_BxTxNxD, loads[name] = block(h_BxTxNxD, valid_BxT)
        return h_BxTxNxD, (h_BxTxNxD if self.keep else None, loads)


def looped(calls: int, remat: bool) -> Callable[..., nn.Module]:
    """A module that calls one `LoopCall` several times with the same parameters, compiled once.

    Streams are stacked along axis 1, after the rows of the batch, and loads along axis 0.
    """
    # A scan keeps the two computations of remat apart by itself.
    call = nn.remat(LoopCall, prevent_cse=False) if remat else LoopCall
    return nn.scan(
        call,
        variable_axes={history_cache.COLLECTION: 0},
        variable_broadcast="params",
        split_rngs={"params": False},
        in_axes=nn.broadcast,
        out_axes=(1, 0),
        length=calls,
    )


class Exit(nn.Module):
    """Global tokens read the sequence by cross-attention; then feed-forward.

    Attributes:
      sizes: of the block.
      index: of its first sublayer.
    """

    sizes: BlockSizes
    index: int

    @nn.compact
    def __call__(self, tokens: Tokens) -> tuple[jax.Array, Loads]:
        """The states of a row's M·G global tokens, (B, M·G, D), and what the routers did."""
        length = tokens.sequence
        valid_BxMG, valid_BxS = tokens.valid_BxT[:, length:], tokens.valid_BxT[:, :length]
        s_BxSxD = RMSNorm(name="memory_norm")(reduce_streams(tokens.h_BxTxNxD[:, :length]))

        def mix(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            if history_cache.reads(self):
                k, v, valid = (history_cache.kept(self, name) for name in ("key", "value", "valid"))
                return attention(q, k, v, None, valid[:, None])
            history_cache.keep(self, key=k, value=v, valid=valid_BxS)
            return attention(q, k, v, None, valid_BxS[:, None])

        attend, feed = self.sizes.attention(), self.sizes.feed_forward()
        h, attended = connected(
            tokens.h_BxTxNxD[:, length:],
            self.index,
            "attention",
            lambda x: attend(x, valid_BxMG, mix, s_BxSxD, valid_BxS),
        )
        h, fed = connected(h, self.index + 1, "feed_forward", lambda x: feed(x, valid_BxMG))
        return reduce_streams(h), {"attention": attended, "feed_forward": fed}


class Entry(nn.Module):
    """Tokens from features, each group projected on its own and given a block of its own.

    Attributes:
      schema: the log's schema.
      sizes: of the blocks.
      width: D.
      streams: N.
      max_len: longest history.
      queries: learned queries that stand for the events before the `recent` last; 0 has all events as tokens.
      recent: events that are tokens if there are queries.
    """

    schema: Schema
    sizes: BlockSizes
    width: int
    streams: int
    max_len: int
    queries: int
    recent: int

    @nn.compact
    def __call__(self, rows: Rows, batch: Batch) -> tuple[Tokens, dict[str, Loads]]:
        """The tokens of a batch, and what the routers of each group's block did."""
        global_BxMGxD, valid_BxMG = self.global_tokens(rows, batch)
        group = global_BxMGxD.shape[1] // batch.candidate_mask.shape[1]
        groups = {**self.sequence_tokens(rows, batch), "global": (global_BxMGxD, valid_BxMG)}
        streams, loads = {}, {}
        for name, (x, valid) in groups.items():
            sequence = 0 if name == "global" else x.shape[1]
            block = Block(self.sizes, ENTRY, sequence, group, name=f"{name}_block")
            streams[name], loads[name] = block(make_streams(x, self.streams), valid)
        h_BxTxNxD = jnp.concatenate(list(streams.values()), axis=1)
        valid_BxT = jnp.concatenate([valid for _, valid in groups.values()], axis=1)
        return Tokens(h_BxTxNxD, valid_BxT, h_BxTxNxD.shape[1] - valid_BxMG.shape[1], group), loads

    def global_tokens(self, rows: Rows, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """The features of profile, candidate and context, each projected to D: (B, M·G, D), (B, M·G) bool.

        A missing value has the bias of its projection.
        """
        size = batch.candidate_mask.shape
        parts = [
            jnp.broadcast_to(rows["profile"][f.name][:, None], (*size, rows["profile"][f.name].shape[-1]))
            for f in self.schema.profile
        ]
        parts += [rows["candidate"][feature.name] for feature in self.schema.candidate]
        parts += [rows["context"][feature.name] for feature in self.schema.context]
        x_BxMxGxd = jnp.stack(parts, axis=2).astype(self.sizes.dtype)
        shape = (*x_BxMxGxd.shape[2:], self.width)
        init = nn.initializers.lecun_normal(in_axis=1, out_axis=2, batch_axis=0)
        init = nn.with_logical_partitioning(init, (None, None, "embed"))
        kernel = self.param("global_kernel", init, shape, jnp.float32)
        init = nn.with_logical_partitioning(nn.initializers.zeros_init(), (None, "embed"))
        bias = self.param("global_bias", init, (shape[0], self.width), jnp.float32)
        x_BxMxGxD = jnp.einsum("bmgi,gio->bmgo", x_BxMxGxd, kernel.astype(self.sizes.dtype)) + bias
        valid_BxMG = jnp.repeat(batch.candidate_mask, shape[0], axis=1)
        return x_BxMxGxD.reshape(size[0], -1, self.width), valid_BxMG

    def sequence_tokens(self, rows: Rows, batch: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
        """The sequence's groups: states (B, slots, D), and (B, slots) bool, False at pads."""
        if not batch.history_mask.shape[1]:
            return {}
        seen_BxL = masking.seen_events(batch)
        x_BxLxE = concat(rows["history"], [feature.name for feature in self.schema.history])
        slots = jnp.arange(seen_BxL.shape[1], dtype=jnp.int32)
        back_BxL = masking.seen_length(batch)[:, None] - slots
        place_BxLxD = self.places(batch, back_BxL)

        def project(name: str, x: jax.Array, place: jax.Array) -> jax.Array:
            dense = Dense(self.width, (None, "embed"), dtype=self.sizes.dtype, name=name)
            return dense(x) + place.astype(self.sizes.dtype)

        if not self.queries:
            return {"short": (project("short", x_BxLxE, place_BxLxD), seen_BxL)}
        last_BxW = back_BxL[:, :1] - 1 - jnp.arange(min(self.recent, len(slots)), dtype=jnp.int32)
        slot_BxW = jnp.maximum(last_BxW, 0)
        short = [gather_events(x, slot_BxW[:, None])[:, 0] for x in (x_BxLxE, place_BxLxD)]
        older_BxL = seen_BxL & (back_BxL > self.recent)
        long_BxLxD = project("long", x_BxLxE, place_BxLxD)
        init = nn.with_logical_partitioning(nn.initializers.normal(1.0), (None, "embed"))
        query_QxD = self.param("queries", init, (self.queries, self.width), jnp.float32)
        query_BxQxD = jnp.broadcast_to(query_QxD, (seen_BxL.shape[0], *query_QxD.shape))
        compress = MultiHeadAttention(self.sizes.heads, self.sizes.dtype, name="compress")
        read_BxQxD = compress(query_BxQxD, long_BxLxD, None, older_BxL[:, None])
        known_BxQ = jnp.repeat(older_BxL.any(1, keepdims=True), self.queries, axis=1)
        return {
            "short": (project("short", *short), last_BxW >= 0),
            "long": (query_BxQxD + read_BxQxD, known_BxQ),
        }

    def places(self, batch: Batch, back_BxL: jax.Array) -> jax.Array:
        """Embeddings of each event's position, counted back from the candidates, and of its time gap to them.

        (B, L, D) float32. Candidates of one request have one time; so no state tells one from another.
        """

        def table(name: str, size: int) -> jax.Array:
            return small_table(self, name, (size, self.width), (None, "embed"))

        age_Bx1 = masking.request_age(batch)
        timed_Bx1 = jnp.ones_like(age_Bx1, bool)
        gap_BxL = time_buckets.pair_buckets(age_Bx1, timed_Bx1, batch.history_age, batch.history_timed)[:, 0]
        position_BxLxD = lookup(table("position_table", self.max_len + 1), back_BxL)
        return position_BxLxD + lookup(table("gap_table", time_buckets.TABLE_ROWS), gap_BxL)
