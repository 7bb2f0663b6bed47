"""What a student learns from its teacher."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from suan_jax.batch import Batch
from suan_jax.layers.loss import cross_entropy
from suan_jax.models.model import Output


def distillation_loss(
    output: Output, teacher_BxM: jax.Array, batch: Batch, weight: float, temperature: float
) -> jax.Array:
    """λ·t²·BCE(σ(z_S/t), σ(z_T/t)), the mean over candidates that are no pads, in nats.

    The factor t² keeps the gradient's size whatever the temperature (Hinton et al., arXiv 1503.02531). No
    gradient flows to the teacher. A student that scores at several depths learns at each of them, weighted
    as its labels are: this project's decision.

    Args:
      output: the student's.
      teacher_BxM: the teacher's logits z_T.
      batch: says which candidates are no pads.
      weight: λ.
      temperature: t.

    Returns:
      () float32.
    """
    target_BxM = jax.nn.sigmoid(jax.lax.stop_gradient(teacher_BxM) / temperature)

    def loss(logits_BxM: jax.Array) -> jax.Array:
        return weight * temperature**2 * cross_entropy(logits_BxM / temperature, target_BxM, batch)

    if output.depth_logits is None:
        return loss(output.logits)
    return jnp.dot(output.depth_weights, jnp.stack([loss(logits_BxM) for logits_BxM in output.depth_logits]))
