import dataclasses

import jax
import numpy as np
import pytest

from suan_jax.layers.retrieval import Retrieved
from suan_jax.models.eta import Eta
from suan_jax.models.sim import HardSim, SoftSim
from suan_jax.models.twin import Twin
from tests.models.intermediates import returned_by
from tests.models.random_model import model_of, random_model
from tests.random_batch import random_batch, random_schema

SCHEMA = random_schema()


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("search", SoftSim(head=(8,), k=3, recent=2, auxiliary_hidden=(6,))),
        ("search", HardSim(head=(8,), k=3, recent=2)),
        ("search", Eta(head=(8,), k=3, recent=2)),
        ("attend", Twin(head=(8,), k=3)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_bfloat16_retrieves_the_same_and_scores_close(method, config):
    model, variables = random_model(config, max_len=40)
    low = model_of(dataclasses.replace(config, dtype="bfloat16"), max_len=40)
    # Enough events that some are as good as equal: a search in bfloat16 would choose otherwise.
    batch = random_batch(4, SCHEMA, rows=64, length=40, lengths=np.full(64, 40), candidates=3)
    returned = [returned_by(method, m, variables, batch) for m in (model, low)]
    found = [part for parts in returned for part in parts if isinstance(part, Retrieved)]
    np.testing.assert_array_equal(*(retrieved.index_BxMxK for retrieved in found))
    high_logits, low_logits = (jax.jit(m.apply)(variables, batch).logits for m in (model, low))
    assert 0 < np.sqrt(np.mean((high_logits - low_logits) ** 2)) < 0.1 * np.std(high_logits)
