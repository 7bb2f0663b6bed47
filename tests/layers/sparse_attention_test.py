import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.layers import masking, time_buckets
from suan_jax.layers.attention import MultiHeadAttention
from suan_jax.layers.bias import PositionBias, TimeBias
from suan_jax.layers.sparse_attention import sparse_attention, sparse_bias
from suan_jax.layers.sparse_pattern import computed_pairs, seen_offsets, sees, sparse_pattern, visible_pairs
from tests.random_batch import garble_pads, pad_history, random_batch, random_schema

SCHEMA = random_schema()
MAX_LEN = 24
HEADS, WIDTH = 2, 6

# The paper's figure of k = r = 2, five events, three candidates: L local, D dilated, R the candidate itself.
FIGURE = """
L
L L
. L L
D . L L
. D . L L
D . D . L R
D . D . L . R
D . D . L . . R
"""


def full(params, x, batch, window, dilation):
    """The masked (T, T) attention."""
    order = masking.token_order(batch)
    offset = order[:, :, None] - order[:, None, :]
    rule = (offset < window) | ((offset - (window - 1)) % dilation == 0)
    tokens = masking.token_age(batch), masking.token_timed(batch)
    bias = PositionBias(MAX_LEN + 1).apply({"params": {"table": params["position"]}}, batch)
    bucket = time_buckets.pair_buckets(*tokens, *tokens)
    bias = bias + TimeBias().apply({"params": {"table": params["time"]}}, bucket)
    mask = masking.visibility(batch) & rule
    return MultiHeadAttention(HEADS).apply({"params": params["attention"]}, x, x, bias, mask)


def sparse(params, x, batch, window, dilation, one_request):
    """The same in parts."""
    pattern = sparse_pattern(batch, window, dilation, one_request)
    bias = sparse_bias(pattern, batch, params["position"], params["time"])
    attention = MultiHeadAttention(HEADS, attend=sparse_attention)
    return attention.apply({"params": params["attention"]}, x, x, bias, pattern)


def forward(function, params, x, batch, *settings):
    return jax.jit(lambda params, x, batch: function(params, x, batch, *settings))(params, x, batch)


def inputs(seed, length, candidates=2, lengths=None, across_time=False):
    batch = random_batch(
        seed,
        SCHEMA,
        rows=4,
        length=length,
        candidates=candidates,
        lengths=lengths,
        across_time=across_time,
    )
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape) / 2, jnp.float32)

    kernel = (WIDTH, HEADS, WIDTH // HEADS)
    attention = {name: normal(*kernel) for name in ("query", "key", "value")}
    attention["out"] = normal(HEADS, WIDTH // HEADS, WIDTH)
    params = {"position": normal(2 * MAX_LEN + 1), "time": normal(130), "attention": attention}
    return params, normal(4, length + candidates, WIDTH), batch


@functools.cache
def compiled(function, settings):
    def run(params, x, batch):
        weight = np.random.default_rng(99).normal(size=x.shape)

        def loss(params, x):
            out = function(params, x, batch, *settings)
            return jnp.sum(weight * jnp.sin(out)), out

        gradients, out = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
        return out, gradients

    return jax.jit(run)


def value_and_gradients(function, params, x, batch, *settings):
    return compiled(function, settings)(params, x, batch)


def assert_close(one, other):
    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1, np.abs(b).max()))

    jax.tree.map(close, one, other)


@pytest.mark.smoke
def test_the_figure_of_the_mask():
    rows = [row.split() for row in FIGURE.strip().splitlines()]
    batch = random_batch(0, SCHEMA, rows=1, length=5, candidates=3, lengths=[5])
    pattern = sparse_pattern(batch, window=2, dilation=2, one_request=True)
    x, unit = jnp.ones((1, 8, 1, 1)), jnp.eye(8)[None, :, None]

    @jax.jit
    def reach(masks):
        # The value of each token is a dimension of its own: where it arrives, the token was attended to.
        return sparse_attention(x, x, unit, {}, pattern.replace(masks=masks))[0, :, 0] > 0

    def by(part):
        return np.asarray(reach({name: mask & (name == part) for name, mask in pattern.masks.items()}))

    letters = np.full((8, 8), ".")
    letters[by("local")] = "L"
    letters[by("dilated") | by("events")] = "D"
    letters[by("own")] = "R"
    letters[5:, 4][by("events")[5:, 4]] = "L"  # the newest event is within the candidates' window
    assert [list(row[: len(expected)]) for row, expected in zip(letters, rows, strict=True)] == rows
    assert not np.triu(letters != ".", 1).any()
    np.testing.assert_array_equal(reach(pattern.masks), letters != ".")


# window, dilation, slots: blocks that do not divide, windows as long as the history and longer, r = 1, far r.
CASES = [
    (2, 2, 5),
    (3, 4, 11),
    (1, 3, 10),
    (4, 1, 9),
    (7, 2, 7),
    (20, 3, 6),
    (5, 30, 13),
    (1, 1, 4),
    (3, 2, 1),
]


@pytest.mark.parametrize(("window", "dilation", "length"), CASES)
@pytest.mark.parametrize("across_time", [False, True])
def test_it_is_the_masked_attention_with_its_gradients(window, dilation, length, across_time):
    # An empty, a one-event, a full and another history.
    lengths = [0, 1, length, max(length - 2, 0)]
    params, x, batch = inputs(window + length, length, lengths=lengths, across_time=across_time)
    mask = batch.candidate_mask.at[2, 1].set(False).at[0].set(False)
    batch = batch.replace(candidate_mask=mask)
    expected = value_and_gradients(full, params, x, batch, window, dilation)
    result = value_and_gradients(sparse, params, x, batch, window, dilation, not across_time)
    assert_close(result, expected)
    out = np.asarray(result[0])
    assert (out[0] == 0).all() and (out[2, -1] == 0).all()  # they see nothing
    assert (out[2, :-1] != 0).any(-1).all()


@pytest.mark.parametrize("seed", range(4))
def test_random_patterns_on_random_histories(seed):
    rng = np.random.default_rng(seed)
    window, dilation, length = (int(n) for n in rng.integers(1, [9, 7, MAX_LEN + 1]))
    params, x, batch = inputs(seed, length, candidates=int(rng.integers(1, 4)))
    expected = value_and_gradients(full, params, x, batch, window, dilation)
    for one_request in (False, True):
        assert_close(value_and_gradients(sparse, params, x, batch, window, dilation, one_request), expected)


def test_dilation_one_and_a_window_over_everything_are_full_causal_attention():
    params, x, batch = inputs(5, 9)
    causal = forward(full, params, x, batch, 100, 1)
    assert_close(forward(sparse, params, x, batch, 3, 1, True), causal)
    assert_close(forward(sparse, params, x, batch, 100, 5, True), causal)


def test_pads_change_nothing_whatever_they_hold_and_however_many():
    params, x, batch = inputs(6, 9, lengths=[9, 4, 0, 1])
    garbled = garble_pads(batch, SCHEMA)
    before, after = (forward(sparse, params, x, b, 2, 3, True) for b in (batch, garbled))
    np.testing.assert_array_equal(before, after)
    padded = garble_pads(pad_history(batch, 14), SCHEMA)
    x_padded = jnp.concatenate([x[:, :9], jnp.full((4, 5, WIDTH), 9.0), x[:, 9:]], axis=1)
    longer = forward(sparse, params, x_padded, padded, 2, 3, True)
    assert_close(longer[:, :9], before[:, :9])
    assert_close(longer[:, 14:], before[:, 9:])


def test_large_values_of_pads_and_large_scores_stay_finite():
    params, x, batch = inputs(7, 9, lengths=[9, 4, 0, 1])
    params = {**params, "position": params["position"] * 1e4}
    out, gradients = value_and_gradients(sparse, params, x * 100, batch, 2, 3, True)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((out, gradients)))
    assert_close(out, forward(full, params, x * 100, batch, 2, 3))


def test_bfloat16_keeps_its_dtype_and_a_float32_softmax():
    _, x, batch = inputs(8, 9)
    pattern = jax.jit(lambda: sparse_pattern(batch, 2, 3, True))()
    q, k, v = (jnp.roll(x, shift, axis=1).reshape(4, -1, HEADS, 3) for shift in range(3))
    bfloat16 = (a.astype(jnp.bfloat16) for a in (q, k, v))
    attend = jax.jit(sparse_attention)
    low = attend(*bfloat16, {}, pattern)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(jnp.float32), attend(q, k, v, {}, pattern), atol=0.02)


def arrays_within(jaxpr):
    """Sizes of all arrays that a program makes."""
    for equation in jaxpr.eqns:
        yield from (np.prod(variable.aval.shape, dtype=int) for variable in equation.outvars)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda value: hasattr(value, "eqns")):
            if hasattr(inner, "eqns"):
                yield from arrays_within(inner)


def test_no_array_of_all_pairs_exists_forward_or_backward():
    length, window = 256, 8
    batch = random_batch(0, SCHEMA, rows=2, length=length, lengths=[length, length])
    x = jnp.ones((2, length + 1, WIDTH))
    params, *_ = inputs(0, 3)
    params["position"] = jnp.ones(2 * length + 1)
    largest = []
    for dilation in (4, 8, 16):

        def loss(params, x, dilation=dilation):
            return jnp.sum(sparse(params, x, batch, window, dilation, True))

        sizes = arrays_within(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(params, x).jaxpr)
        largest.append(max(sizes))
    # Scores of heads, B · H · L · L / r, lead until the private bins of the tables' gradients do.
    assert largest[0] <= 2 * HEADS * length**2 / 4 * 1.1
    assert largest[0] > 1.8 * largest[1] > 1.8 * largest[2]


def test_operations_fall_with_dilation():
    length = 256
    batch = random_batch(0, SCHEMA, rows=2, length=length, lengths=[length, length])
    q = jax.ShapeDtypeStruct((2, length + 1, 2, 32), jnp.float32)

    def cost(dilation):
        def run(q, k, v):
            return sparse_attention(q, k, v, {}, sparse_pattern(batch, 8, dilation, True))

        return jax.jit(run).lower(q, q, q).compile().cost_analysis()["flops"] / 2

    costs = [cost(dilation) for dilation in (1, 2, 4, 8)]
    counted = [2 * 2 * 64 * computed_pairs(length, 8, dilation) for dilation in (1, 2, 4, 8)]
    np.testing.assert_allclose(costs, counted, rtol=0.12)  # the softmax is not counted
    assert all(a > 1.6 * b for a, b in itertools.pairwise(costs))


@pytest.mark.smoke
@pytest.mark.parametrize(("window", "dilation"), [(2, 2), (1, 3), (4, 1), (30, 2), (3, 40)])
def test_pairs_are_counted(window, dilation):
    lengths = np.array([0, 1, 2, 7, 20])
    expected = []
    for length in lengths:
        offset = np.subtract.outer(np.arange(length + 1), np.arange(length + 1))
        expected.append(sees(offset, window, dilation).sum())
        seen = offset[-1][sees(offset[-1], window, dilation)][::-1]
        np.testing.assert_array_equal(seen[1:], seen_offsets(length, window, dilation))
    np.testing.assert_array_equal(visible_pairs(lengths, window, dilation), expected)
    assert computed_pairs(20, window, dilation) >= expected[-1]
