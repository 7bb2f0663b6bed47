"""LightSUAN: SUAN with sparse self-attention (RecSys 2025, arXiv 2508.15326).

SUAN's tokens, blocks and head, parameter for parameter; only who attends to whom differs. With
o = back_j − back_i on positions counted back from the candidate, token i attends to token j iff o < k (the
local window), or o ≥ k and (o − (k − 1)) mod r = 0 (dilated); see `layers/sparse_pattern.py`. Attention
over L events costs O(L·(k + (L − k) / r)·D); with k > L or r = 1 it is SUAN's. Every candidate has position 0
and sees the history and itself, so that one pass scores them all, each as it would be alone.

From the paper's figure of the mask: the rule, and the candidates beside one another.
This project's decisions: k = 16 and r = 4 by default, with which the candidate of 100 events attends to 36
of them; SUAN's grades; no `pool = "all"`, under which history states would depend on the candidate, so that
candidates could not be scored side by side; SUAN's own decisions.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.errors import UserError
from suan_jax.layers.attention import Attend
from suan_jax.layers.fused_attention import Relation, Tables, check_choice, fused_softmax, fuses, relation
from suan_jax.layers.sparse_attention import sparse_attention, sparse_bias
from suan_jax.layers.sparse_pattern import Parts, Pattern, computed_pairs, sparse_pattern, visible_pairs
from suan_jax.models.model import register
from suan_jax.models.size import check_sizes
from suan_jax.models.suan import Suan, SuanModule
from suan_jax.schema import Schema


@register
@dataclasses.dataclass
class LightSuan(Suan):
    """LightSUAN's settings: SUAN's, less the pool "all", and the pattern of its attention.

    Attributes:
      window: k, tokens of the local window, the token itself included.
      dilation: r, steps between the tokens attended to before the window.
      attention: "fused", "plain" or "auto" as in `Suan`; "plain" by default, for at 1,024 tokens the kernel
        takes as long for this pattern as for full attention.
    """

    name: str = "light_suan"
    window: int = 16
    dilation: int = 4
    attention: str = "plain"

    def module(self, schema: Schema, max_len: int) -> nn.Module:
        """See `ModelDefinition`."""
        check_sizes(window=self.window, dilation=self.dilation)
        if self.pool not in ("history", "causal"):
            raise UserError(
                f"config.model.pool is {self.pool!r}, expected history or causal, for candidates are scored"
                " side by side on history states that depend on none of them"
            )
        check_choice(self.attention)
        return LightSuanModule(self, schema, self.size(schema), max_len, self.compute_dtype())

    def computed_pairs(self, max_len: int, candidates: int = 1) -> int:
        """See `Suan`."""
        one_request = bool(self.across_time_refusal())
        return computed_pairs(max_len, self.window, self.dilation, candidates, one_request)

    def visible_pairs(self, lengths: np.ndarray) -> np.ndarray:
        """See `Suan`."""
        return visible_pairs(lengths, self.window, self.dilation)


class LightSuanModule(SuanModule):
    """LightSUAN on gathered rows; attributes as of `SuanModule`."""

    def self_attention(self, batch: Batch) -> tuple[Attend, Parts | Tables, Pattern | Relation]:
        """See `SuanModule`."""
        config, size = self.config, self.size
        tables = self.bias_tables()
        if fuses(config.attention, size.width // size.heads, self.dtype):
            return fused_softmax, tables, relation(batch, window=config.window, dilation=config.dilation)
        # What cannot hold candidates of different times holds those of one request.
        one_request = bool(config.across_time_refusal())
        pattern = sparse_pattern(batch, *self.reach(), one_request)
        return sparse_attention, sparse_bias(pattern, batch, *tables, self.dtype), pattern

    def reach(self) -> tuple[int, int]:
        """See `SuanModule`."""
        return self.config.window, self.config.dilation
