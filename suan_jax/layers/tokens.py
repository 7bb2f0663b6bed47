"""From gathered rows to the token sequence of a sequential model: history first, then the candidates."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from suan_jax.batch import HOURS_OF_WEEK, Batch, hour_of_week
from suan_jax.layers import masking
from suan_jax.layers.bias import lookup, small_table
from suan_jax.layers.dense import Dense
from suan_jax.layers.embedding import Rows
from suan_jax.schema import PAD, Schema


def shared_names(schema: Schema) -> tuple[str, ...]:
    """Features that history and candidate both have, in the order of `schema.history`."""
    candidate = {feature.name for feature in schema.candidate}
    return tuple(feature.name for feature in schema.history if feature.name in candidate)


def candidate_only_names(schema: Schema) -> tuple[str, ...]:
    """Features of the candidate that history lacks, in the order of `schema.candidate`."""
    history = {feature.name for feature in schema.history}
    return tuple(feature.name for feature in schema.candidate if feature.name not in history)


def concat(rows: dict[str, jax.Array], names: Iterable[str]) -> jax.Array:
    """The named embeddings side by side, along the last axis."""
    return jnp.concatenate([rows[name] for name in names], axis=-1)


def aligned_features(schema: Schema, rows: Rows) -> jax.Array:
    """Each token's F history features side by side, (B, T, F·d); zero where a candidate lacks one."""
    names = [feature.name for feature in schema.history]
    history = concat(rows["history"], names)
    like = rows["candidate"][schema.item]
    candidate = {name: rows["candidate"].get(name, jnp.zeros_like(like)) for name in names}
    return jnp.concatenate([history, concat(candidate, names)], axis=1)


def feature_tokens(schema: Schema, rows: Rows, batch: Batch, width: int, dtype: jnp.dtype) -> jax.Array:
    """Each token's features as a vector, (B, T, `width`); for the compact method of a module.

    The F history features side by side, through the module's Dense `project` if `width` is not F·d, and the
    candidate's own features through its Dense `candidate`.
    """

    def dense(name: str) -> Dense:
        return Dense(width, (None, "embed"), dtype=dtype, name=name)

    x_BxTxD = aligned_features(schema, rows).astype(dtype)
    if x_BxTxD.shape[-1] != width:
        x_BxTxD = dense("project")(x_BxTxD)
    own = candidate_only_names(schema)
    if own:
        own_BxMxD = dense("candidate")(concat(rows["candidate"], own))
        x_BxTxD += jnp.pad(own_BxMxD, ((0, 0), (batch.history_mask.shape[1], 0), (0, 0)))
    return x_BxTxD


def feature_macs(
    schema: Schema, tokens: np.ndarray | int, row_width: int, width: int, candidates: int = 1
) -> np.ndarray | int:
    """Multiply-adds of `feature_tokens` for a row of so many tokens.

    Args:
      schema: the log's schema.
      tokens: tokens, the candidates included.
      row_width: width of a feature's embedding.
      width: width of a token.
      candidates: candidates of the row.
    """
    features = len(schema.history) * row_width
    project = tokens * features * width if features != width else 0
    return project + candidates * len(candidate_only_names(schema)) * row_width * width


def profile_tokens(schema: Schema, rows: Rows, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """The P profile features as tokens: (B, P, d), and (B, P) bool, False where the value is missing."""
    names = [feature.name for feature in schema.profile]
    size = batch.history_mask.shape[0]
    if not names:
        width = rows["candidate"][schema.item].shape[-1]
        return jnp.zeros((size, 0, width)), jnp.zeros((size, 0), bool)
    # One comparison for all features, as no id is below PAD: of one for each, in a batch of one row, XLA for
    # GPUs (jax 0.11.2) makes a program that it then refuses.
    ids_BxP = jnp.stack([batch.profile[name].reshape(size, -1).max(-1) for name in names], axis=1)
    return jnp.stack([rows["profile"][name] for name in names], axis=1), ids_BxP != PAD


class TokenEmbedding(nn.Module):
    """Features, hour of the week and, where asked for, position, summed into states of width D.

    `feature_tokens`; Dense(emb(hour of the week)) of each token's own time, with a row for "unknown"; and a
    learned position counted back from the candidate (rows of one request only).

    Attributes:
      schema: the log's schema.
      width: D.
      hour_width: width of the hour embedding.
      positions: rows of the position table, max_len + 1; 0 for a model without absolute positions.
      dtype: dtype of the products and the result.
    """

    schema: Schema
    width: int
    hour_width: int
    positions: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows: Rows, batch: Batch) -> jax.Array:
        """The tokens of a batch, (B, T, D)."""
        x_BxTxD = feature_tokens(self.schema, rows, batch, self.width, self.dtype)
        hours = hour_of_week(batch, masking.token_age(batch), masking.token_timed(batch))
        hour_table = small_table(self, "hour_table", (HOURS_OF_WEEK + 1, self.hour_width))
        to_width = Dense(self.width, (None, "embed"), dtype=self.dtype, name="hour")
        x_BxTxD += to_width(lookup(hour_table, hours))
        if self.positions:
            back = masking.seen_length(batch)[:, None] - masking.token_order(batch)
            shape = (self.positions, self.width)
            position_table = small_table(self, "position_table", shape, (None, "embed"))
            x_BxTxD += lookup(position_table, back).astype(self.dtype)
        return x_BxTxD


def token_macs(
    schema: Schema, tokens: np.ndarray | int, row_width: int, width: int, candidates: int = 1
) -> np.ndarray | int:
    """Multiply-adds of `TokenEmbedding` with hours of `row_width`; arguments as in `feature_macs`."""
    return feature_macs(schema, tokens, row_width, width, candidates) + tokens * row_width * width
