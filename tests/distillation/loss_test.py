import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.distillation.loss import distillation_loss
from suan_jax.models.model import Output
from tests.random_batch import random_batch, random_schema

_WEIGHT, _TEMPERATURE = 0.7, 3.0


@pytest.fixture(scope="module")
def case():
    """A batch with pads among its candidates, and logits of a student and a teacher."""
    batch = random_batch(0, random_schema(), rows=6, candidates=4)
    mask = np.random.default_rng(1).random(batch.candidate_mask.shape) < 0.6
    student, teacher = np.random.default_rng(2).normal(0, 3, (2, *mask.shape)).astype(np.float32)
    return dataclasses.replace(batch, candidate_mask=mask), student, teacher


def _sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def _oracle(student, teacher, mask, temperature):
    p, q = _sigmoid(student / temperature), _sigmoid(teacher / temperature)
    losses = -(q * np.log(p) + (1 - q) * np.log(1 - p))
    return _WEIGHT * temperature**2 * losses[mask].mean()


@pytest.mark.smoke
@pytest.mark.parametrize("temperature", [1.0, _TEMPERATURE])
def test_it_is_the_cross_entropy_of_softened_logits_times_the_temperature_squared(case, temperature):
    batch, student, teacher = case
    loss = distillation_loss(Output(student), teacher, batch, _WEIGHT, temperature)
    assert float(loss) == pytest.approx(
        _oracle(student, teacher, batch.candidate_mask, temperature), rel=1e-5
    )


def test_its_gradient_pulls_the_student_and_leaves_the_teacher(case):
    batch, student, teacher = case

    def loss(student, teacher):
        return distillation_loss(Output(student), teacher, batch, _WEIGHT, _TEMPERATURE)

    of_student, of_teacher = jax.grad(loss, argnums=(0, 1))(student, teacher)
    mask = batch.candidate_mask
    gap = _sigmoid(student / _TEMPERATURE) - _sigmoid(teacher / _TEMPERATURE)
    expected = np.where(mask, _WEIGHT * _TEMPERATURE * gap / mask.sum(), 0)
    np.testing.assert_allclose(of_student, expected, rtol=1e-4, atol=1e-7)
    assert not of_teacher.any()


def test_the_gradient_keeps_its_size_at_high_temperatures(case):
    batch, student, teacher = case
    mask = batch.candidate_mask
    gradient = jax.grad(lambda z: distillation_loss(Output(z), teacher, batch, _WEIGHT, 1e3))(student)
    expected = np.where(mask, _WEIGHT * (student - teacher) / 4 / mask.sum(), 0)  # the logits are matched
    np.testing.assert_allclose(gradient, expected, rtol=2e-2, atol=1e-5)


def test_a_looped_student_learns_at_every_depth(case):
    batch, student, teacher = case
    depths, weights = jnp.stack([student, -student]), jnp.array([0.25, 0.75])
    output = Output(student, depth_logits=depths, depth_weights=weights)
    loss = distillation_loss(output, teacher, batch, _WEIGHT, _TEMPERATURE)
    each = [_oracle(z, teacher, batch.candidate_mask, _TEMPERATURE) for z in (student, -student)]
    assert float(loss) == pytest.approx(np.dot(weights, each), rel=1e-5)
