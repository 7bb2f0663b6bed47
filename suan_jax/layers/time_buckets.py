"""Logarithmic buckets of time differences, decided by exact integer edges.

bucket(Δ) = clip(floor(ln(max(|Δ|, 1)) / 0.301), 0, 128), Δ in seconds (SUAN, and HSTU's research code).
Floating-point evaluation is wrong at a few integers next to an edge (float32 and float64 first disagree at
Δ = 417,901), so the smallest integer of each bucket is computed in 60 decimal digits, once, and decides
everywhere.
"""

from __future__ import annotations

import decimal

import jax
import jax.numpy as jnp
import numpy as np

NUM_BUCKETS = 129
UNKNOWN = NUM_BUCKETS  # the bucket of a difference from or to an unknown time
TABLE_ROWS = NUM_BUCKETS + 1  # of a table that is read by bucket, the last for unknown times
_STEP = "0.301"
_DEVICE_BUCKETS = 72  # bucket 72 starts beyond int32


def _exact_edges() -> np.ndarray:
    """The smallest non-negative integer whose bucket is at least b, for b = 0..128, (129,) int64."""
    with decimal.localcontext(prec=60):
        starts = [(decimal.Decimal(_STEP) * b).exp() for b in range(1, NUM_BUCKETS)]
        return np.array([0] + [int(start.to_integral_value(decimal.ROUND_CEILING)) for start in starts])


EDGES = _exact_edges()
DEVICE_EDGES = EDGES[:_DEVICE_BUCKETS]  # those within int32


def host_bucket(delta: np.ndarray) -> np.ndarray:
    """Buckets of any int64 differences in seconds, on the host; int32."""
    return np.searchsorted(EDGES[1:], np.abs(delta), side="right").astype(np.int32)


def bucket(delta: jax.Array) -> jax.Array:
    """Buckets of int32 differences in seconds, 0 to 71, int32; exact, and equal to `host_bucket`.

    The logarithm, lowered by far more than its error and far less than a bucket, gives the bucket or the one
    before it; one comparison with an exact edge decides which.
    """
    delta = jnp.maximum(jnp.abs(delta), 1)
    guess = jnp.floor(jnp.log(delta.astype(jnp.float32)) / float(_STEP) - 1e-3)
    guess = jnp.clip(guess.astype(jnp.int32), 0, _DEVICE_BUCKETS - 2)
    edges = jnp.asarray(DEVICE_EDGES, jnp.int32)
    return guess + (delta >= jnp.take(edges, guess + 1, mode="clip")).astype(jnp.int32)


def pair_buckets(
    query_age: jax.Array, query_timed: jax.Array, key_age: jax.Array, key_timed: jax.Array
) -> jax.Array:
    """Buckets of |query_age[b, i] − key_age[b, j]|, `UNKNOWN` where either time is unknown.

    Args:
      query_age: (B, T) int32, seconds, never negative (so that no difference overflows).
      query_timed: (B, T) bool.
      key_age: (B, S) int32, likewise.
      key_timed: (B, S) bool.

    Returns:
      (B, T, S) int32, 0 to `UNKNOWN`.
    """
    known = query_timed[:, :, None] & key_timed[:, None, :]
    return jnp.where(known, bucket(query_age[:, :, None] - key_age[:, None, :]), UNKNOWN)
