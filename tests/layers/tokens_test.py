import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import meta

from suan_jax.batch import UNKNOWN_HOUR, hour_of_week
from suan_jax.layers import embedding
from suan_jax.layers.tokens import (
    TokenEmbedding,
    candidate_only_names,
    profile_tokens,
    shared_names,
)
from suan_jax.schema import PAD
from tests.random_batch import random_batch, random_schema

_SCHEMA = random_schema()
_LOOKUPS = embedding.feature_lookups(_SCHEMA, 4)


def _rows(batch):
    tables = embedding.init_tables(jax.random.key(0), _LOOKUPS, 0.3)
    return embedding.gather(_LOOKUPS, tables, batch)


@pytest.mark.smoke
def test_names_are_told_apart_by_side():
    assert shared_names(_SCHEMA) == ("item", "category", "tags")
    assert candidate_only_names(_SCHEMA) == ("shop",)


@pytest.mark.parametrize(("width", "positions"), [(16, 0), (16, 9), (6, 9)])
def test_a_token_is_the_sum_of_its_parts(width, positions):
    batch = random_batch(1, _SCHEMA, candidates=2)
    rows = _rows(batch)
    tokens = TokenEmbedding(_SCHEMA, width, 4, positions)
    variables = meta.unbox(tokens.init(jax.random.key(1), rows, batch))
    params = jax.tree.map(lambda x: np.asarray(x) + 0.1, variables["params"])
    got_BxTxD = np.asarray(tokens.apply({"params": params}, rows, batch))
    names = [feature.name for feature in _SCHEMA.history]
    length = batch.history_mask.shape[1]

    def part(token):
        """A function of (row, slot) for history slots and candidates."""
        row, slot = token
        history = slot < length
        group, at = ("history", (row, slot)) if history else ("candidate", (row, slot - length))
        side = rows[group]
        zero = np.zeros(4, np.float32)
        x = np.concatenate([side[name][at] if name in side else zero for name in names])
        if width != 16:
            x = x @ params["project"]["kernel"] + params["project"]["bias"]
        if not history:
            own = params["candidate"]
            x = x + side["shop"][at] @ own["kernel"] + own["bias"]
        age = batch.history_age[at] if history else batch.candidate_age[at]
        timed = bool(batch.history_timed[at]) if history else True
        hour = int(hour_of_week(batch, jnp.full((5, 1), age), jnp.full((5, 1), timed))[row, 0])
        assert timed or hour == UNKNOWN_HOUR
        x = x + params["hour_table"][hour] @ params["hour"]["kernel"] + params["hour"]["bias"]
        if positions:
            seen = int(batch.visible[row].max())  # one request: every candidate sees them all
            back = seen - slot if history else 0
            x = x + params["position_table"][np.clip(back, 0, positions - 1)]
        return x

    mask = np.concatenate([batch.history_mask, batch.candidate_mask], axis=1)
    for token in zip(*np.nonzero(mask), strict=True):
        np.testing.assert_allclose(got_BxTxD[token], part(token), rtol=1e-4, atol=1e-5)


def test_a_profile_token_is_masked_where_its_value_is_missing():
    batch = random_batch(2, _SCHEMA)
    tokens_BxPxd, mask_BxP = profile_tokens(_SCHEMA, _rows(batch), batch)
    for index, feature in enumerate(_SCHEMA.profile):
        ids = np.asarray(batch.profile[feature.name]).reshape(5, -1)
        np.testing.assert_array_equal(mask_BxP[:, index], (ids != PAD).any(1))
        np.testing.assert_array_equal(tokens_BxPxd[:, index], _rows(batch)["profile"][feature.name])
    assert mask_BxP.any() and not mask_BxP.all()


def test_the_profile_mask_is_one_comparison():
    # Several, in a batch of one row, become a program that XLA for GPUs refuses: see `profile_tokens`.
    batch = random_batch(2, _SCHEMA)
    rows = _rows(batch)
    program = jax.make_jaxpr(lambda batch: profile_tokens(_SCHEMA, rows, batch))(batch)
    compared = [equation for equation in program.eqns if equation.primitive.name in ("ne", "eq", "gt")]
    assert len(_SCHEMA.profile) > 1 and len(compared) == 1
