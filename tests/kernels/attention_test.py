import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.kernels.attention import Tiles, Tokens, fused_attention
from suan_jax.kernels.attention_tile import Cut
from suan_jax.kernels.reference import plain_attention, sees
from suan_jax.layers import time_buckets

EDGES = tuple(int(edge) for edge in time_buckets.EDGES[:72])
NAMES = ("q", "k", "v", "position", "time")
TILES = Tiles(16, forward=Cut(heads=2), queries=Cut(heads=2), tables=Cut(rows=2))


def random_tokens(rng, size, length, candidates, unknown=0.2):
    """Tokens of rows of random length (the first is empty), candidates that see random parts of it."""
    lengths = rng.integers(0, length + 1, size)
    lengths[0], lengths[-1] = 0, length
    slot = np.arange(length)
    history = np.where(slot < lengths[:, None], slot + 1, -1)
    own = rng.integers(0, lengths[:, None] + 1, (size, candidates))
    own = np.where(rng.random(own.shape) < 0.2, -1, own)
    ages = np.cumsum(np.exp(rng.uniform(0, 14, (size, length + candidates))).astype(np.int64), axis=1)
    ages = np.minimum(ages[:, ::-1], 2**31 - 1)
    query, key = (np.where(rng.random(ages.shape) < unknown, -1, x) for x in (ages // 2, ages))
    arrays = (np.concatenate([history, own], axis=1), query, key)
    return Tokens(*(jnp.asarray(x, jnp.int32) for x in arrays))


def random_inputs(seed, size=3, length=37, candidates=3, heads=2, width=16, max_tokens=45):
    rng = np.random.default_rng(seed)
    vectors = [rng.normal(size=(size, length + candidates, heads, width)) for _ in range(4)]
    tables = [rng.normal(size=2 * max_tokens - 1), rng.normal(size=time_buckets.TABLE_ROWS)]
    return vectors, tables, random_tokens(rng, size, length, candidates)


def value_and_gradients(attention, vectors, tables, tokens, dtype, options):
    q, k, v, weight = (jnp.asarray(x, dtype) for x in vectors)
    table = [None if x is None else jnp.asarray(x, jnp.promote_types(dtype, jnp.float32)) for x in tables]
    given = [x for x in (q, k, v, *table) if x is not None]

    def loss(*given):
        given = iter(given)
        arrays = [next(given) for _ in range(3)] + [None if x is None else next(given) for x in table]
        out = attention(*arrays[:3], tokens, *arrays[3:], **options)
        return jnp.sum(out * weight, dtype=jnp.promote_types(dtype, jnp.float32)), out

    run = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(given))), has_aux=True))
    (_, out), gradients = run(*given)
    return [np.asarray(x, np.float64) for x in (out, *gradients)]


def compare(vectors, tables, tokens, rtol=2e-5, dtype=jnp.float32, **options):
    """The kernels in interpret mode against the reference in float64, relative to each array's norm."""
    fused = functools.partial(fused_attention, interpret=True, tiles=TILES)
    own = value_and_gradients(fused, vectors, tables, tokens, dtype, options)
    with jax.enable_x64(True):
        options = {name: value for name, value in options.items() if name != "workspace"}
        plain = value_and_gradients(plain_attention, vectors, tables, tokens, jnp.float64, options)
    names = ["out", *NAMES[:3], *(n for n, x in zip(NAMES[3:], tables, strict=True) if x is not None)]
    for name, a, b in zip(names, own, plain, strict=True):
        assert np.linalg.norm(a - b) <= rtol * np.linalg.norm(b), name
        assert np.linalg.norm(b) > 0, name
    return own


def options(kind, history, **more):
    return {"kind": kind, "history": history, "scale": 0.25, "divisor": 7.0, "edges": EDGES, **more}


@pytest.mark.parametrize("kind", ["softmax", "silu"])
@pytest.mark.parametrize("sparse", [{}, {"window": 5, "dilation": 3}, {"window": 4, "dilation": 2}])
def test_it_and_its_five_gradients_are_the_reference_s(kind, sparse):
    own = compare(*random_inputs(0), **options(kind, 37, **sparse))
    assert all(np.isfinite(x).all() for x in own)


@pytest.mark.parametrize(
    "shape",
    [
        {"length": 48, "candidates": 0, "width": 20, "max_tokens": 49},
        {"length": 31, "candidates": 1, "heads": 1, "max_tokens": 32},
        {"length": 9, "candidates": 30, "heads": 3, "size": 2},
    ],
)
def test_any_shape(shape):
    compare(*random_inputs(1, **shape), **options("softmax", shape["length"]))
    compare(*random_inputs(2, **shape), **options("silu", shape["length"], window=3, dilation=4))


@pytest.mark.parametrize("sparse", [{}, {"window": 3, "dilation": 4}])
def test_candidates_alone(sparse):
    inputs = random_inputs(12, size=1, length=0, candidates=5, max_tokens=2)
    compare(*inputs, **options("silu", 0, **sparse))


@pytest.mark.parametrize("sparse", [{}, {"window": 5, "dilation": 3}])
def test_a_small_workspace_takes_rows_in_turns_with_the_same_result(sparse):
    vectors, tables, tokens = random_inputs(8, size=5)
    given = options("softmax", 37, **sparse)
    whole = compare(vectors, tables, tokens, **given)
    for workspace in (0, 40_000):  # a row at a time; and forward three rows and then two
        turns = compare(vectors, tables, tokens, **given, workspace=workspace)
        for a, b in zip(turns, whole, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_no_array_of_pairs_is_larger_than_the_workspace():
    vectors, tables, tokens = random_inputs(8, size=5)
    arrays = [jnp.asarray(x, jnp.float32) for x in (*vectors[:3], *tables)]
    for workspace, every in ((0, False), (1 << 30, True)):
        given = options("softmax", 37, workspace=workspace, interpret=True, tiles=TILES)

        def loss(q, k, v, *tables, given=given):
            return jnp.sum(fused_attention(q, k, v, tokens, *tables, **given))

        program = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2, 3, 4)))(*arrays))
        assert ("f32[5,1,48,48]" in program) == every


def test_runs_side_by_side_are_as_alone():
    runs = [random_inputs(seed) for seed in (10, 11)]
    arrays = [[jnp.asarray(x, jnp.float32) for x in (*vectors, *tables)] for vectors, tables, _ in runs]
    tokens = [tokens for _, _, tokens in runs]
    given = options("softmax", 37, interpret=True, tiles=TILES)

    def gradients(arrays, tokens):
        def loss(q, k, v, weight, *tables):
            return jnp.sum(fused_attention(q, k, v, tokens, *tables, **given) * weight)

        return jax.grad(loss, argnums=(0, 1, 2, 4, 5))(*arrays)

    stack = functools.partial(jax.tree.map, lambda *x: jnp.stack(x))
    together = jax.vmap(gradients)(stack(*arrays), stack(*tokens))
    alone = stack(*map(gradients, arrays, tokens))
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("missing", [(0,), (1,), (0, 1)])
def test_tables_may_be_missing(missing):
    vectors, tables, tokens = random_inputs(3)
    tables = [None if i in missing else table for i, table in enumerate(tables)]
    compare(vectors, tables, tokens, **options("softmax", 37))


@pytest.mark.smoke
def test_rows_without_keys_are_exactly_zero_and_pads_are_not_read():
    vectors, tables, tokens = random_inputs(4)
    blind = np.asarray(tokens.seen_BxT) < 0
    seeing = np.asarray(sees(tokens, 37)).any(-1)
    assert blind.any() and (seeing == ~blind).all()
    run = functools.partial(fused_attention, interpret=True, tiles=TILES, **options("softmax", 37))
    q, k, v = (jnp.asarray(x, jnp.float32) for x in vectors[:3])
    tables = [jnp.asarray(table, jnp.float32) for table in tables]
    out = np.asarray(run(q, k, v, tokens, *tables))
    assert (out[blind] == 0).all() and (np.abs(out[~blind]).max(axis=(1, 2)) > 0).all()
    garbled = [jnp.where(blind[:, :, None, None], 1e3, x) for x in (q, k, v)]
    times = [jnp.where(blind, 77, x) for x in tokens[1:]]
    np.testing.assert_array_equal(run(*garbled, Tokens(tokens.seen_BxT, *times), *tables), out)


def test_a_candidate_may_look_at_slots_that_are_pads():
    vectors, tables, tokens = random_inputs(9, length=60, max_tokens=61)
    seen = tokens.seen_BxT.at[:, 60:].set(60)
    compare(vectors, tables, tokens._replace(seen_BxT=seen), **options("softmax", 60))


def test_bfloat16_is_within_its_rounding():
    vectors, tables, tokens = random_inputs(5)
    vectors = [np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) for x in vectors]
    sparse = {"window": 5, "dilation": 3}
    # The parts of sparse attention are rounded each; gradients of time weights nearly cancel in a softmax.
    for kind, more, rtol in (("softmax", {}, 1e-2), ("silu", {}, 1e-2), ("softmax", sparse, 1.5e-2)):
        compare(vectors, tables, tokens, rtol=rtol, dtype=jnp.bfloat16, **options(kind, 37, **more))


def test_every_second_from_an_edge_is_in_its_bucket():
    # One query; the keys' gaps are the edges and their neighbours, and v tells the buckets apart.
    edges = np.asarray(EDGES, np.int64)
    gaps = np.unique(np.concatenate([edges - 1, edges, edges + 1, [2**31 - 1]]).clip(0, 2**31 - 1))
    length = gaps.size
    tokens = Tokens(
        jnp.asarray(np.append(np.arange(length) + 1, length)[None], jnp.int32),
        jnp.zeros((1, length + 1), jnp.int32),
        jnp.asarray(np.append(gaps, 0)[None], jnp.int32),
    )
    table = jnp.arange(130, dtype=jnp.float32)
    tiles = Tiles(64)
    zero = jnp.zeros((1, length + 1, 1, 256), jnp.float32)
    v = zero.at[0, jnp.arange(length), 0, jnp.arange(length)].set(1.0)

    def buckets(table):
        launch = options("silu", length) | {"divisor": 1.0}
        return fused_attention(zero, zero, v, tokens, None, table, interpret=True, tiles=tiles, **launch)[
            0, -1, 0
        ]

    expected = jax.nn.silu(jnp.asarray(time_buckets.host_bucket(gaps), jnp.float32))
    np.testing.assert_allclose(buckets(table)[:length], expected, rtol=1e-5)
    counts = jax.grad(lambda table: buckets(table)[:length].sum())(jnp.full(130, 50.0))
    np.testing.assert_allclose(counts, np.bincount(time_buckets.host_bucket(gaps), minlength=130), rtol=1e-5)


def test_layers_that_share_the_tables_add_their_gradients():
    vectors, tables, tokens = random_inputs(6, size=2, length=20, candidates=1)
    q, k, v, _ = (jnp.asarray(x, jnp.float32) for x in vectors)
    position, time = (jnp.asarray(x, jnp.float32) for x in tables)
    run = functools.partial(fused_attention, interpret=True, tiles=TILES, **options("softmax", 20))

    def loss(position, time, layers):
        def layer(x, scale):
            return run(q * scale, k, x, tokens, position, time), None

        return jnp.sum(jax.lax.scan(layer, v, jnp.arange(1.0, 1 + layers))[0] ** 2)

    own = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)(position, time, 2)
    run = functools.partial(plain_attention, **options("softmax", 20))
    plain = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)(position, time, 2)
    for a, b in zip(own, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "relu"}, "kind is 'relu'"),
        ({"window": 3}, "dilation 0"),
        ({"history": 45}, "position table has 89 weights"),
        ({"edges": ()}, "0 edges"),
    ],
)
def test_bad_arguments_are_named(change, words):
    vectors, tables, tokens = random_inputs(7)
    arguments = options("softmax", 37) | change
    with pytest.raises(ValueError, match=words):
        fused_attention(*vectors[:3], tokens, *(jnp.asarray(x) for x in tables), interpret=True, **arguments)
