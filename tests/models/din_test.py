import jax
import numpy as np
import pytest

from suan_jax import models
from suan_jax.config import Config
from suan_jax.errors import UserError
from suan_jax.models.din import Din
from tests.random_batch import random_batch, random_schema


def test_one_grade_only():
    with pytest.raises(UserError, match=r"config\.model\.grade is 1"):
        models.build(Config(model=Din(grade=1)), random_schema())


def test_statistics_of_dice_come_from_visible_pairs_alone():
    schema = random_schema()
    model = models.build(Config(model=Din(head=(8,))), schema)
    batch = random_batch(0, schema, lengths=[7, 7, 7, 0, 0])
    variables = jax.jit(model.init)(jax.random.key(0), batch)
    # The rows of the empty histories are gone: their pairs were pads, so Dice's statistics stay.
    fewer = jax.tree.map(lambda x: x[:3], batch)
    stats = [
        model.apply(variables, b, train=True, mutable=["batch_stats"])[1]["batch_stats"]["attention"]
        for b in (batch, fewer)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9), *stats)
