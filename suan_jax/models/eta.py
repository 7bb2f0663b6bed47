"""ETA, Efficient Target Attention (arXiv 2108.04468): search by locality-sensitive hashing.

    code(x) = sign(x R),  R (D × b) drawn once from N(0, 1) and never trained
    search  = the K events whose codes are nearest to the candidate's in Hamming distance

What was retrieved goes through multi-head target attention, beside a short branch over the last events. A
distance is (b − code · code) / 2 with codes of ±1, so that a matrix product finds it. R is in the collection
`constants`: a checkpoint holds it, and a model that is restored retrieves the same events.

This project's decisions: codes are of the features that candidate and history share, float32; sign(0) = 1; of
equal distances the most recent event is taken; b = 32; K = 50; no gradient passes the search; keys are [e_j ‖
emb(time gap_j)] and the short branch is DIN's interest over the last 20 events, both as in SIM; the head is
the one that all models share.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from suan_jax.batch import Batch
from suan_jax.layers import masking
from suan_jax.layers.embedding import Rows
from suan_jax.layers.retrieval import Retrieved, top_k
from suan_jax.layers.tokens import concat, shared_names
from suan_jax.models.model import register
from suan_jax.models.search import SearchDefinition, SearchModule
from suan_jax.models.size import check_sizes
from suan_jax.schema import Schema


@register
@dataclasses.dataclass
class Eta(SearchDefinition):
    """ETA's settings.

    Attributes:
      bits: b, length of a hash code.
    """

    name: str = "eta"
    bits: int = 32

    def module(self, schema: Schema, max_len: int) -> nn.Module:
        """See `ModelDefinition`."""
        self.check()
        check_sizes(bits=self.bits)
        return EtaModule(self, schema, self.compute_dtype())

    def search_macs(self, schema: Schema, events: float) -> float:
        """See `SearchDefinition`."""
        shared = len(shared_names(schema)) * self.embedding_width
        return (events + 1) * shared * self.bits + events * self.bits


class EtaModule(SearchModule):
    """ETA on gathered rows."""

    def search(self, rows: Rows, batch: Batch, train: bool) -> tuple[Retrieved, dict[str, jax.Array]]:
        """See `SearchModule`."""
        names, bits = shared_names(self.schema), self.config.bits
        x_BxMxD, x_BxLxD = concat(rows["candidate"], names), concat(rows["history"], names)

        def draw() -> jax.Array:
            return jax.random.normal(self.make_rng("params"), (x_BxMxD.shape[-1], bits), jnp.float32)

        projection = self.variable("constants", "projection", draw).value
        mask_BxMxL = masking.candidate_visibility(batch)
        codes = (hash_codes(jax.lax.stop_gradient(x), projection) for x in (x_BxMxD, x_BxLxD))
        return top_k(-hamming_distance(*codes, mask_BxMxL), mask_BxMxL, self.config.k), {}


def hash_codes(x: jax.Array, projection_Dxb: jax.Array) -> jax.Array:
    """The signs ±1 of x R, (..., b) float32, 1 at zero."""
    return jnp.where(jnp.matmul(x, projection_Dxb, precision="highest") >= 0, 1.0, -1.0)


def hamming_distance(code_BxMxb: jax.Array, code_BxLxb: jax.Array, mask_BxMxL: jax.Array) -> jax.Array:
    """Bits in which candidate and event differ, (B, M, L) float32; b + 1 where `mask` is False."""
    bits = code_BxMxb.shape[-1]
    equal_BxMxL = jnp.einsum("bmc,blc->bml", code_BxMxb, code_BxLxb)  # equal bits less different ones: exact
    return jnp.where(mask_BxMxL, (bits - equal_BxMxL) / 2, bits + 1)
