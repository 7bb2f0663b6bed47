"""LightSUAN's sparse attention: a window of recent tokens, and every r-th one before it (arXiv 2508.15326).

One softmax runs over all that a token sees. Each part of the pattern (see `layers/sparse_pattern.py`) gives
sums of exp(score − maximum), which are merged by their maxima into it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from suan_jax.batch import Batch
from suan_jax.layers import masking, time_buckets
from suan_jax.layers.attention import MASKED
from suan_jax.layers.bias import lookup
from suan_jax.layers.sparse_pattern import Parts, Pattern, parts_of


def sparse_bias(
    pattern: Pattern,
    batch: Batch,
    position_table: jax.Array | None,
    time_table: jax.Array | None,
    dtype: jnp.dtype = jnp.float32,
) -> Parts:
    """The relative biases of SUAN for the pairs of a pattern; see `bias.PositionBias` and `bias.TimeBias`.

    Args:
      pattern: of the tokens of `batch`.
      batch: says when the tokens were.
      position_table: (2n − 1,) float32, or None; n is one more than the longest history of the config.
      time_table: (`time_buckets.TABLE_ROWS`,) float32, or None.
      dtype: dtype of the result.

    Returns:
      The sum of the biases of each pair; no part at all without tables.
    """

    def read(table: jax.Array, bins: jax.Array) -> jax.Array:
        # The pairs of a group share private bins in the gradient: those of one query are too few for a table.
        bins = jnp.asarray(bins, jnp.int32)
        return lookup(table, bins.reshape(*bins.shape[:-2], -1)).reshape(bins.shape)

    age_BxT, timed_BxT = masking.token_age(batch), masking.token_timed(batch)
    biases: Parts = {}
    for name, part in parts_of(pattern, batch.history_mask.shape[1]).items():
        terms = []
        if position_table is not None:
            terms.append(read(position_table, position_table.shape[0] // 2 - part.offset))
        if time_table is not None:
            tokens = [pick(x) for pick in (part.queries, part.keys) for x in (age_BxT, timed_BxT)]
            groups = tokens[0].shape[:2]
            bucket = time_buckets.pair_buckets(*(x.reshape(-1, x.shape[-1]) for x in tokens))
            terms.append(read(time_table, bucket.reshape(*groups, *bucket.shape[1:])))
        if terms:
            biases[name] = sum(terms).astype(dtype)
    return biases


def sparse_attention(
    q_BxTxHxDh: jax.Array, k_BxTxHxDh: jax.Array, v_BxTxHxDh: jax.Array, bias: Parts, pattern: Pattern
) -> jax.Array:
    """softmax(q kᵀ / sqrt(Dh) + bias) v over the pairs of a pattern, the softmax in float32.

    Args:
      q_BxTxHxDh: queries of the tokens, history first, then the candidates.
      k_BxTxHxDh: keys.
      v_BxTxHxDh: values.
      bias: `sparse_bias`, added to the scores of every head; it may be empty.
      pattern: who attends to whom.

    Returns:
      (B, T, H, Dh) in the dtype of `v`; exactly zero for a query that sees no key.
    """
    length = q_BxTxHxDh.shape[1] - pattern.visible_BxM.shape[1]
    tokens = (q_BxTxHxDh, k_BxTxHxDh, v_BxTxHxDh)
    parts, sums = parts_of(pattern, length), []
    for name in ("local", "dilated"):
        if name in parts:
            part = parts[name]
            q, k, v = part.queries(q_BxTxHxDh), part.keys(k_BxTxHxDh), part.keys(v_BxTxHxDh)
            own = _exponential_sums(q, k, v, bias.get(name), pattern.masks[name])
            sums.append(_Sums(*(part.ungroup(x, fill) for x, fill in zip(own, (MASKED, 0, 0), strict=True))))
    history = _softmax_of(sums).astype(v_BxTxHxDh.dtype)
    candidates = [x[:, length:] for x in tokens]
    events = k_BxTxHxDh[:, :length], v_BxTxHxDh[:, :length]
    return jnp.concatenate([history, candidate_attention(*candidates, *events, bias, pattern)], axis=1)


def candidate_attention(
    q_BxMxHxDh: jax.Array,
    k_BxMxHxDh: jax.Array,
    v_BxMxHxDh: jax.Array,
    k_BxLxHxDh: jax.Array,
    v_BxLxHxDh: jax.Array,
    bias: Parts,
    pattern: Pattern,
) -> jax.Array:
    """The candidates' part of `sparse_attention`, given the events' keys and values.

    A bias and a pattern of one candidate serve all candidates of one request.

    Args:
      q_BxMxHxDh: queries of the candidates.
      k_BxMxHxDh: their own keys.
      v_BxMxHxDh: their own values.
      k_BxLxHxDh: keys of the events.
      v_BxLxHxDh: values of the events.
      bias: as in `sparse_attention`.
      pattern: likewise.

    Returns:
      (B, M, H, Dh) in the dtype of `v`.
    """
    masks = pattern.masks
    own = [x[:, :, None] for x in (q_BxMxHxDh, k_BxMxHxDh, v_BxMxHxDh)]
    sums = [_Sums(*(x[:, :, 0] for x in _exponential_sums(*own, bias.get("own"), masks["own"])))]
    events = parts_of(pattern, k_BxLxHxDh.shape[1]).get("events")
    if events is not None:
        k, v = events.keys(k_BxLxHxDh), events.keys(v_BxLxHxDh)
        seen = _exponential_sums(q_BxMxHxDh[:, None], k, v, bias.get("events"), masks["events"])
        sums.append(_Sums(*(x[:, 0] for x in seen)))
    return _softmax_of(sums).astype(v_BxMxHxDh.dtype)


class _Sums(NamedTuple):
    """What some keys of a query add to its softmax: their largest score, Σ exp(score − it), Σ exp(…) v."""

    top: jax.Array
    total: jax.Array
    weighted: jax.Array


def _exponential_sums(
    q_BxGxNxHxDh: jax.Array,
    k_BxGxSxHxDh: jax.Array,
    v_BxGxSxHxDh: jax.Array,
    bias_BxGxNxS: jax.Array | None,
    mask_BxGxNxS: jax.Array,
) -> _Sums:
    scale = q_BxGxNxHxDh.shape[-1] ** -0.5
    score_BxGxHxNxS = jnp.einsum(
        "bgnhd,bgshd->bghns", q_BxGxNxHxDh * scale, k_BxGxSxHxDh, preferred_element_type=jnp.float32
    )
    if bias_BxGxNxS is not None:
        score_BxGxHxNxS = score_BxGxHxNxS + bias_BxGxNxS[:, :, None].astype(jnp.float32)
    mask = mask_BxGxNxS[:, :, None]
    score_BxGxHxNxS = jnp.where(mask, score_BxGxHxNxS, MASKED)
    # A softmax does not change with what is taken off its scores, so neither does its gradient.
    top = jax.lax.stop_gradient(jnp.max(score_BxGxHxNxS, axis=-1))
    weight_BxGxHxNxS = jnp.where(mask, jnp.exp(score_BxGxHxNxS - top[..., None]), 0.0)
    weighted_BxGxNxHxDh = jnp.einsum(
        "bghns,bgshd->bgnhd",
        weight_BxGxHxNxS.astype(v_BxGxSxHxDh.dtype),
        v_BxGxSxHxDh,
        preferred_element_type=jnp.float32,
    )
    return _Sums(jnp.swapaxes(top, 2, 3), jnp.swapaxes(weight_BxGxHxNxS.sum(-1), 2, 3), weighted_BxGxNxHxDh)


def _softmax_of(parts: list[_Sums]) -> jax.Array:
    """The softmax over the keys of all parts together, (B, N, H, Dh) float32; zero where they have none."""
    top = jnp.stack([part.top for part in parts]).max(0)
    shrink = [jnp.exp(part.top - top) for part in parts]
    total = sum(part.total * by for part, by in zip(parts, shrink, strict=True))
    weighted = sum(part.weighted * by[..., None] for part, by in zip(parts, shrink, strict=True))
    return weighted / jnp.where(total > 0, total, 1.0)[..., None]
