"""LoopCTR (arXiv 2604.19550): a block called n times in training, and no more often than one likes after it.

    Entry → Loop, called n times with the same parameters → Exit

Sequence tokens are the events, with their positions and time gaps; global tokens are the features of profile,
candidate and context, each candidate having its own copy. Entry gives each group a block of its own. In the
Loop a sequence token sees the sequence, a global token the sequence and its own candidate's global tokens:
the sequence never sees a candidate, and its keys and values, made once per call, serve all M. In Exit the
global tokens read the sequence; flattened they are what the head scores. One Exit scores every depth, and all
depths are trained together,

    1/(n + 1) · Σ_{l = 0..n} BCE(Exit(X_l), y)  +  α · balance loss.

LoopCTR(i/n) is trained with n loops and scores with i; at i = 0 the Loop is not called and its parameters are
not read. Residuals are dynamic hyper-connections; attention and feed-forward are mixtures of experts.

StackCTR is the control: the same model, whose n blocks have parameters of their own, at the same operations.
Other controls are settings: `trained_loops = 0`; `streams = 1`, plain residuals; `experts = 1`, no mixture;
`depth_weights = (0, ..., 0, 1)`, the loss of the last depth alone.

From the abstract and summaries: the three parts, their attention, one Exit, the loss, hyper-connections,
mixtures of experts with W_V and W_O per expert.
This project's decisions: D 64, H 4, two streams, four experts of which a token chooses one, feed-forward of
hidden 2·D with gelu and no biases, gates, capacity and balance as in `layers.experts`, n = 3, α 1e-2, full
back-propagation through the loops; RMSNorm before each sublayer; positions counted back and time gaps to the
candidates in SUAN's buckets, each a table of width D; attention's experts are chosen like the feed-forward's;
numeric features enter by the head alone; Exit reads the sequence through a norm of its own, and its state
goes, without one, to the head that all models share, so that a comparison compares what comes before the
head; StackCTR's blocks start as the Loop does; with `queries`, learned queries, N(0, 1) at first, read the
events before the last `recent`, which have a projection of their own, without a norm, are added to what they
read, and are masked in a row without such events; the grades, of which grade 1, D 64, is the default: from
there on their body parameters are SUAN's within a fifth.

The head takes the depths as candidates of the row: in training its BatchNorm and Dice have one set of
statistics over all of them. Had each depth statistics of its own there, it would be scored by others at
inference, where the running ones are those of all depths.

History states depend on the candidates' time and on every event of the row: rows of one request are exact,
rows across time are refused.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.errors import UserError
from suan_jax.layers import history_cache
from suan_jax.layers.embedding import Rows
from suan_jax.layers.experts import (
    RouterLoad,
    balance_loss,
    feed_forward_macs,
    projection_macs,
    router_macs,
    sum_loads,
)
from suan_jax.layers.head import Head, head_macs
from suan_jax.layers.hyper_connections import connection_macs
from suan_jax.layers.prefix_attention import prefix_pairs
from suan_jax.models.loop_diagnostics import expert_shares, stream_norms
from suan_jax.models.model import TRAINING_PASSES, Loops, Output, register
from suan_jax.models.sandwich import LOOP, BlockSizes, Entry, Exit, LoopCall, Tokens, looped
from suan_jax.models.size import Size, SizedDefinition
from suan_jax.schema import Schema

GRADES = (
    Size(1, 20, 2),
    Size(1, 64, 4),  # this project's default
    Size(1, 192, 4),
    Size(1, 560, 8),
    Size(1, 1376, 16),
    Size(1, 3200, 16),
)


@register
@dataclasses.dataclass
class LoopCtr(SizedDefinition):
    """LoopCTR's settings, beside its sizes; `layers` is the number of blocks of the Loop.

    Attributes:
      trained_loops: n, calls of the Loop in training.
      inferred_loops: calls behind the logits, 0 to n.
      depth_weights: share of the loss of depths 0 to n, of any sum; empty for equal ones.
      streams: residual streams; 1 is the plain residual.
      experts: E; 1 is no mixture.
      top_k: k, experts that a token chooses.
      balance_weight: α, the weight of the balance loss.
      expansion: width of a feed-forward's hidden layer, in D.
      queries: learned queries that compress the older events; 0 has all events as tokens.
      recent: events that are tokens, read if there are queries.
      remat: whether calls of the Loop are computed again in the backward pass, to save memory.
    """

    grades = GRADES
    shared: ClassVar[bool] = True
    name: str = "loopctr"
    grade: int = 1
    trained_loops: int = 3
    inferred_loops: int = 0
    depth_weights: tuple[float, ...] = ()
    streams: int = 2
    experts: int = 4
    top_k: int = 1
    balance_weight: float = 1e-2
    expansion: int = 2
    queries: int = 0
    recent: int = 50
    remat: bool = False

    def module(self, schema: Schema, max_len: int) -> nn.Module:
        """See `ModelDefinition`."""
        self._check()
        return LoopCtrModule(self, schema, self.size(schema), max_len, self.compute_dtype())

    def _check(self) -> None:
        lowest = {"trained_loops": 0, "streams": 1, "experts": 1, "expansion": 1, "queries": 0, "recent": 1}
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise UserError(f"config.model.{name} is {getattr(self, name)}, expected at least {least}")
        for name, least, bound in (("inferred_loops", 0, "trained_loops"), ("top_k", 1, "experts")):
            value, most = getattr(self, name), getattr(self, bound)
            if not least <= value <= most:
                raise UserError(
                    f"config.model.{name} is {value}, expected {least} to config.model.{bound}, {most}"
                )
        if not 0 <= self.balance_weight < math.inf:
            raise UserError(f"config.model.balance_weight is {self.balance_weight}, expected at least 0")
        weights, depths = self.depth_weights, self.trained_loops + 1
        finite = all(0 <= weight < math.inf for weight in weights)
        if weights and (len(weights) != depths or not finite or not 0 < sum(weights) < math.inf):
            raise UserError(
                f"config.model.depth_weights is {weights}, expected () or {depths} weights, one for each "
                "depth from 0 to config.model.trained_loops, finite, none negative and not all 0"
            )

    def across_time_refusal(self) -> str:
        """See `ModelDefinition`."""
        return (
            f"config.model.name is {self.name!r}, whose history states see later events and the time to them"
        )

    def cache_refusal(self) -> str:
        """See `ModelDefinition`."""
        return ""

    def cache_moment_refusal(self) -> str:
        """See `ModelDefinition`."""
        return f"config.model.name is {self.name!r}, whose events carry their time to the request"

    def loops(self) -> Loops:
        """See `ModelDefinition`."""
        return Loops(self.trained_loops, self.inferred_loops)

    def flops_per_example(self, schema: Schema, max_len: int) -> float:
        """See `ModelDefinition`: of inference with `inferred_loops`."""
        return self.flops_at(schema, max_len, self.inferred_loops)

    def flops_at(self, schema: Schema, max_len: int, loops: int) -> float:
        """Operations of scoring one example at a depth alone, as `flops_per_example` counts them."""
        return 2.0 * self._macs(schema, max_len, loops, exits=1)

    def training_flops_per_example(self, schema: Schema, max_len: int) -> float:
        """See `ModelDefinition`: n loops, n + 1 exits and heads; what remat repeats is not counted."""
        return self.training_flops_per_row(schema, max_len, 1)

    def training_flops_per_row(self, schema: Schema, max_len: int, candidates: int) -> float:
        """See `ModelDefinition`."""
        n = self.trained_loops
        return TRAINING_PASSES * 2.0 * self._macs(schema, max_len, n, exits=n + 1, candidates=candidates)

    def useful_flops(self, schema: Schema, lengths: np.ndarray) -> float:
        """See `ModelDefinition`."""
        events = np.asarray(lengths, np.float64)
        return 2.0 * float(np.mean(self._macs(schema, events, self.inferred_loops, exits=1)))

    def _macs(
        self, schema: Schema, events: np.ndarray | int, loops: int, exits: int, candidates: int = 1
    ) -> np.ndarray | int:
        """Multiply-adds of a row of so many events and candidates."""
        size, row = self.size(schema), self.embedding_width
        width, hidden = size.width, self.expansion * size.width
        group = len(schema.profile) + len(schema.candidate) + len(schema.context)
        global_tokens = candidates * group
        project = len(schema.history) * row * width
        route, attend = router_macs(self.experts, width), projection_macs(self.experts, width)
        feed = feed_forward_macs(self.experts, width, hidden)
        connect = 2 * connection_macs(self.streams, width)

        def block(sequence: np.ndarray | int, groups: int) -> np.ndarray | int:
            tokens = sequence + groups * group
            pairs = prefix_pairs(sequence, groups, group)
            return tokens * (connect + route + 2 * attend + feed) + 2 * pairs * width

        short = np.minimum(events, self.recent) if self.queries else events
        entry = short * project + block(short, 0) + global_tokens * row * width + block(0, candidates)
        if self.queries:
            compress = 2 * (self.queries + events) * width**2 + 2 * self.queries * events * width
            entry = entry + events * project + compress + block(self.queries, 0)
        sequence = short + self.queries
        leave = global_tokens * (connect + route + attend + feed) + sequence * (route + attend)
        leave = leave + 2 * global_tokens * sequence * width
        leave = leave + candidates * head_macs(schema, group * width, row, self.head)
        return entry + loops * size.layers * block(sequence, candidates) + exits * leave


@register
@dataclasses.dataclass
class StackCtr(LoopCtr):
    """StackCTR's settings: LoopCTR's, with unshared blocks in place of the Loop's calls."""

    shared: ClassVar[bool] = False
    name: str = "stackctr"


class LoopCtrModule(nn.Module):
    """LoopCTR or StackCTR on gathered rows.

    Attributes:
      config: the settings.
      schema: the log's schema.
      size: the settings' sizes for that schema.
      max_len: longest history.
      dtype: dtype of products; streams are float32.
    """

    config: LoopCtr
    schema: Schema
    size: Size
    max_len: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, rows: Rows, batch: Batch, train: bool, loops: int | None = None, all_depths: bool = False
    ) -> Output:
        """Logits of every candidate.

        Args:
          rows: gathered rows.
          batch: the batch they are of.
          train: whether the head takes the batch's statistics; all depths are computed.
          loops: the one depth to compute, in training too; None for `inferred_loops`.
          all_depths: whether to compute all depths without training.

        Raises:
          UserError: if there are fewer or more `loops` than the model is trained with.
        """
        config, n = self.config, self.config.trained_loops
        if loops is not None and not 0 <= loops <= n:
            raise UserError(f"loops is {loops}, expected 0 to {n}, the loops it is trained with")
        # At its initialisation the module makes the parameters of every depth.
        every = loops is None and (train or all_depths or self.is_initializing())
        calls = n if every else config.inferred_loops if loops is None else loops
        if history_cache.reads(self):
            batch = history_cache.without_events(batch)
        size = self.size
        hidden = config.expansion * size.width
        sizes = BlockSizes(size.heads, hidden, config.experts, config.top_k, self.dtype)
        shape = size.width, config.streams, self.max_len
        entry = Entry(self.schema, sizes, *shape, config.queries, config.recent, name="entry")
        tokens, entry_loads = entry(rows, batch)
        h_BxCxTxNxD, loop_loads = self.states(tokens, sizes, calls, every)
        depths = h_BxCxTxNxD.shape[1]
        # Depths are folded into rows, a row's own next to each other, so that devices keep their rows.
        folded = tokens.replace(
            h_BxTxNxD=h_BxCxTxNxD.reshape(-1, *h_BxCxTxNxD.shape[2:]),
            valid_BxT=jnp.repeat(tokens.valid_BxT, depths, axis=0),
        )
        leave = Exit(sizes, LOOP + 2 * size.layers, name="exit")
        state, exit_loads = leave(folded)
        logits_CxBxM = self.score(state, depths, rows, batch, train)
        if not every:
            return Output(logits_CxBxM[0])
        routers = _routers((entry_loads, exit_loads)) + [
            load
            for stacked in _routers(loop_loads)
            for load in ([sum_loads(stacked)] if config.shared else _unstack(stacked))
        ]
        weights = np.array(config.depth_weights or (1.0,) * (n + 1))
        mixture = config.experts > 1
        return Output(
            logits_CxBxM[config.inferred_loops],
            depth_logits=logits_CxBxM,
            depth_weights=jnp.asarray(weights / weights.sum(), jnp.float32),
            auxiliary={"balance": config.balance_weight * balance_loss(routers)} if mixture else {},
            diagnostics={
                **stream_norms(h_BxCxTxNxD, tokens.valid_BxT),
                **(expert_shares(loop_loads) if mixture else {}),
            },
        )

    def states(
        self, tokens: Tokens, sizes: BlockSizes, calls: int, keep: bool
    ) -> tuple[jax.Array, dict[str, Any]]:
        """The streams at each depth (B, C = calls + 1, T, N, D), or, not kept, at the last (B, 1, T, N, D).

        And what the routers did in each call, stacked along the first axis.
        """
        config, h_BxTxNxD, valid_BxT = self.config, tokens.h_BxTxNxD, tokens.valid_BxT
        arguments = (sizes, self.size.layers, tokens.sequence, tokens.group, keep)
        if not calls:
            return h_BxTxNxD[:, None], {}
        if config.shared:
            loop = looped(calls, config.remat)(*arguments, name="loop")
            last, (kept, loads) = loop(h_BxTxNxD, valid_BxT)
        else:
            one, last, each = nn.remat(LoopCall) if config.remat else LoopCall, h_BxTxNxD, []
            for call in range(calls):
                last, result = one(*arguments, name=f"stack_{call}")(last, valid_BxT)
                each.append(result)
            kept = jnp.stack([state for state, _ in each], axis=1) if keep else None
            loads = jax.tree.map(lambda *x: jnp.stack(x), *(load for _, load in each))
        return jnp.concatenate([h_BxTxNxD[:, None], kept], axis=1) if keep else last[:, None], loads

    def score(self, state: jax.Array, depths: int, rows: Rows, batch: Batch, train: bool) -> jax.Array:
        """The head's logits (C, B, M) of Exit's states (B·C, M·G, D), the depths being candidates to it."""
        size, candidates = batch.candidate_mask.shape

        def tile(x: jax.Array) -> jax.Array:
            return jnp.tile(x, (1, depths, *(1,) * (x.ndim - 2)))

        tiled = batch.replace(candidate_mask=tile(batch.candidate_mask), dense=tile(batch.dense))
        own = {group: jax.tree.map(tile, rows[group]) for group in ("candidate", "context")}
        config = self.config
        head = Head(self.schema, config.head, config.batch_norm_momentum, dtype=self.dtype, name="head")
        flat_BxCMxS = state.reshape(size, depths * candidates, -1)
        logits_BxCM = head(flat_BxCMxS, {**rows, **own}, tiled, train)
        return jnp.swapaxes(logits_BxCM.reshape(size, depths, candidates), 0, 1)


def _routers(loads: Any) -> list[RouterLoad]:
    return jax.tree.leaves(loads, is_leaf=lambda leaf: isinstance(leaf, RouterLoad))


def _unstack(stacked: RouterLoad) -> list[RouterLoad]:
    return [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(len(stacked.tokens))]
