"""The loss of every model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from suan_jax.batch import Batch


def log_loss(logits_BxM: jax.Array, batch: Batch) -> jax.Array:
    """The mean binary cross-entropy in nats over the candidates that are no pads; zero if all are."""
    return cross_entropy(logits_BxM, batch.label, batch)


def cross_entropy(logits_BxM: jax.Array, target_BxM: jax.Array, batch: Batch) -> jax.Array:
    """The same against probabilities `target_BxM` in the place of labels."""
    losses_BxM = optax.sigmoid_binary_cross_entropy(logits_BxM, target_BxM)
    valid = batch.candidate_mask
    return jnp.sum(jnp.where(valid, losses_BxM, 0.0)) / jnp.maximum(jnp.sum(valid), 1)
