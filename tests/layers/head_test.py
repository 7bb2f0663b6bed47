import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import meta

from suan_jax.layers import embedding
from suan_jax.layers.head import Head, head_macs
from tests.random_batch import random_batch, random_schema

_SCHEMA = random_schema()
_LOOKUPS = embedding.feature_lookups(_SCHEMA, 4)
_WIDTHS = (6, 5)


def _built(norm_logit=False):
    batch = random_batch(0, _SCHEMA, candidates=2)
    rows = embedding.gather(_LOOKUPS, embedding.init_tables(jax.random.key(0), _LOOKUPS, 0.3), batch)
    state = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2, 3)), jnp.float32)
    head = Head(_SCHEMA, _WIDTHS, 0.9, norm_logit)
    variables = meta.unbox(head.init(jax.random.key(1), state, rows, batch, False))
    return head, jax.tree.map(lambda x: x + 0.2, variables), state, rows, batch


@pytest.mark.smoke
def test_it_reads_state_profile_candidate_context_and_dense_in_this_order():
    head, variables, state, rows, batch = _built()
    params, stats = variables["params"], variables["batch_stats"]

    def norm(x, scope):
        return (x - scope["mean"]) / np.sqrt(scope["var"])

    profile = [np.repeat(rows["profile"][f.name][:, None], 2, axis=1) for f in _SCHEMA.profile]
    candidate = [rows["candidate"][f.name] for f in _SCHEMA.candidate]
    context = [rows["context"][f.name] for f in _SCHEMA.context]
    x = np.concatenate([state, *profile, *candidate, *context, batch.dense], axis=-1)
    for index in range(len(_WIDTHS)):
        x = x @ params[f"dense_{index}"]["kernel"]
        affine, own = params[f"norm_{index}"], stats[f"norm_{index}"]
        x = norm(x, own) * affine["scale"] + affine["bias"]
        p = 1 / (1 + np.exp(-norm(x, stats[f"dice_{index}"]["norm"])))
        x = p * x + params[f"dice_{index}"]["alpha"] * (1 - p) * x
    expected = (x @ params["logit"]["kernel"] + params["logit"]["bias"])[..., 0]
    np.testing.assert_allclose(
        head.apply(variables, state, rows, batch, False), expected, rtol=2e-4, atol=2e-4
    )


def test_its_kernels_are_the_multiply_adds():
    _, variables, *_ = _built()
    kernels = [scope["kernel"].size for name, scope in variables["params"].items() if "kernel" in scope]
    assert head_macs(_SCHEMA, 3, 4, _WIDTHS) == sum(kernels)


def test_a_norm_on_the_logit_centres_the_batch():
    head, variables, state, rows, batch = _built(norm_logit=True)
    logits, _ = head.apply(variables, state, rows, batch, True, mutable=["batch_stats"])
    scope = variables["params"]["norm_logit"]
    mask = np.asarray(batch.candidate_mask)
    assert np.mean(logits[mask]) == pytest.approx(float(scope["bias"][0]), abs=1e-5)
    assert np.std(logits[mask]) == pytest.approx(float(scope["scale"][0]), rel=1e-3)
