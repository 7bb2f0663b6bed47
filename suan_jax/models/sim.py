"""SIM, the Search-based Interest Model (CIKM 2020, arXiv 2006.05639), with soft or hard search.

Soft search (`soft_sim`) scores every event, retrieves the K best, and trains its scores by a loss of its own:

    r_i   = (W_b e_i) · (W_a e_t)
    L_aux = BCE(MLP_aux([Σ_i r_i e_i, e_t, other features]), label)

Hard search (`hard_sim`) retrieves the K most recent events of the candidate's category. What was retrieved
goes through multi-head target attention over [e_j ‖ emb(time gap_j)], beside a short branch over the last
events.

This project's decisions: e_i is all of an event's features and e_t all of the candidate's; r is float32 and
as wide as the attention; MLP_aux is built like the shared head, with hidden layers 200-80, and the weight of
its loss is 1; of equal scores the most recent is taken; a category outside the vocabulary matches none;
K = 50; 4 heads, each as wide as a feature's embedding; a time gap is the bucket of SUAN's time bias, with a
row for unknown times; the short branch is DIN's interest over the last 20 events; the head is the one that
all models share.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.errors import UserError
from suan_jax.layers import masking
from suan_jax.layers.embedding import Rows
from suan_jax.layers.head import Head
from suan_jax.layers.loss import log_loss
from suan_jax.layers.retrieval import Retrieved, most_recent, top_k
from suan_jax.layers.target_attention import TargetQuery, query_macs, target_scores
from suan_jax.models.model import register
from suan_jax.models.search import SearchDefinition, SearchModule, candidate_rows, history_rows
from suan_jax.schema import OOV, Schema


@register
@dataclasses.dataclass
class SoftSim(SearchDefinition):
    """SIM's settings with soft search.

    Attributes:
      auxiliary_weight: weight of the search's own loss, reported as `search`.
      auxiliary_hidden: widths of the hidden layers of its MLP.
    """

    name: str = "soft_sim"
    auxiliary_weight: float = 1.0
    auxiliary_hidden: tuple[int, ...] = (200, 80)

    def module(self, schema: Schema, max_len: int) -> nn.Module:
        """See `ModelDefinition`."""
        self.check()
        if not 0 <= self.auxiliary_weight < math.inf:
            raise UserError(f"config.model.auxiliary_weight is {self.auxiliary_weight}, expected at least 0")
        return SoftSimModule(self, schema, self.compute_dtype())

    def search_macs(self, schema: Schema, events: float) -> float:
        """See `SearchDefinition`."""
        row, event = self.embedding_width, len(schema.history) * self.embedding_width
        return query_macs(len(schema.candidate) * row, event, self.heads * row) + events * event


class SoftSimModule(SearchModule):
    """SIM with soft search, on gathered rows."""

    def search(self, rows: Rows, batch: Batch, train: bool) -> tuple[Retrieved, dict[str, jax.Array]]:
        """See `SearchModule`; the loss is there in training alone."""
        config = self.config
        mask_BxMxL = masking.candidate_visibility(batch)
        e_BxLxE = history_rows(self.schema, rows)
        query = TargetQuery(1, config.heads * config.embedding_width, e_BxLxE.shape[-1], name="search_query")
        r_BxMxL = target_scores(query(candidate_rows(self.schema, rows)), e_BxLxE[:, None])[:, :, 0]
        auxiliary = {}
        if train or self.is_initializing():
            pooled_BxMxE = jnp.einsum("bml,ble->bme", jnp.where(mask_BxMxL, r_BxMxL, 0.0), e_BxLxE)
            momentum = config.batch_norm_momentum
            head = Head(self.schema, config.auxiliary_hidden, momentum, dtype=self.dtype, name="auxiliary")
            logits_BxM = head(pooled_BxMxE, rows, batch, train)
            auxiliary["search"] = config.auxiliary_weight * log_loss(logits_BxM, batch)
        return top_k(r_BxMxL, mask_BxMxL, config.k), auxiliary


@register
@dataclasses.dataclass
class HardSim(SearchDefinition):
    """SIM's settings with hard search."""

    name: str = "hard_sim"

    def module(self, schema: Schema, max_len: int) -> nn.Module:
        """See `ModelDefinition`."""
        self.check()
        if schema.category is None:
            raise UserError(
                "schema.category is None, expected the name of a feature: hard_sim searches by it"
            )
        return HardSimModule(self, schema, self.compute_dtype())

    def search_macs(self, schema: Schema, events: float) -> float:
        """See `SearchDefinition`."""
        return 0.0


class HardSimModule(SearchModule):
    """SIM with hard search, on gathered rows."""

    def search(self, rows: Rows, batch: Batch, train: bool) -> tuple[Retrieved, dict[str, jax.Array]]:
        """See `SearchModule`."""
        match_BxMxL = masking.candidate_visibility(batch) & same_category(self.schema, batch)
        return most_recent(match_BxMxL, self.config.k), {}


def same_category(schema: Schema, batch: Batch) -> jax.Array:
    """(B, M, L) bool, True where candidate and event have a category of the vocabulary in common."""
    candidate, history = batch.candidate[schema.category], batch.history[schema.category]
    candidate = candidate.reshape(*batch.candidate_mask.shape, -1)[:, :, None, :, None]
    history = history.reshape(*batch.history_mask.shape, -1)[:, None, :, None, :]
    return ((candidate == history) & (candidate > OOV)).any((-2, -1))
