import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.training import table_update
from suan_jax.training.table_update import adagrad_rows, distinct, inference_table, read_rows

_KEY = jax.random.key(0)


def dense_reference(table, accumulator, ids, gradient_per_id, learning_rate):
    """Row-wise Adagrad with a gradient of the table's own size, in float64 NumPy."""
    gradient = np.zeros(table.shape)
    np.add.at(gradient, ids, gradient_per_id)
    accumulator = accumulator + np.mean(gradient**2, -1)
    return table - learning_rate * gradient / np.sqrt(accumulator)[:, None], accumulator


@pytest.mark.smoke
@pytest.mark.parametrize(("rows", "n"), [(40, 200), (1000, 200), (200, 200), (5, 1), (1, 7)])
def test_row_update_equals_dense_reference(rows, n):
    random = np.random.default_rng(rows + n)
    table = random.normal(size=(rows, 4)).astype(np.float32)
    accumulator = random.uniform(0.1, 1.0, rows).astype(np.float32)
    ids = (rows * random.uniform(size=n) ** 3).astype(np.int32)  # skewed: many repeats
    weights = random.normal(size=(n, 4)).astype(np.float32)

    @jax.jit
    def update(table, accumulator, ids, weights):
        found = distinct(ids, rows)
        read = read_rows(table, found.ids)

        def loss(read):
            return jnp.sum(weights * read[found.position] ** 2)

        return adagrad_rows(table, accumulator, found.ids, jax.grad(loss)(read), 0.1, _KEY)

    got = update(table, accumulator, ids, weights)
    expected = dense_reference(table, accumulator, ids, 2 * weights * table[ids], 0.1)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-5)


def test_untouched_rows_keep_their_bits():
    table = jnp.asarray(np.random.default_rng(0).normal(size=(1000, 3)), jnp.float32)
    accumulator = jnp.full(1000, 0.1)
    found = distinct(jnp.asarray([7, 7, 900]), 1000)
    new_table, new_accumulator = adagrad_rows(table, accumulator, found.ids, jnp.ones((3, 3)), 0.1, _KEY)
    changed = np.flatnonzero(np.any(np.asarray(new_table != table), -1))
    assert changed.tolist() == [7, 900]
    assert np.flatnonzero(np.asarray(new_accumulator != accumulator)).tolist() == [7, 900]


@pytest.mark.parametrize("way", [distinct, table_update._searched, table_update._sorted])
def test_distinct_ids_come_once_and_give_the_batch_back(way):
    ids = jnp.asarray(np.random.default_rng(1).integers(0, 500, 300), jnp.int32)
    found = way(ids, 5000)
    assert (np.diff(found.ids[: len(np.unique(ids))]) > 0).all()
    np.testing.assert_array_equal(found.ids[found.position], ids)
    inside = np.asarray(found.ids)[np.asarray(found.ids) < 5000]
    assert len(np.unique(inside)) == len(inside)


def test_rows_never_trained_read_as_unknown():
    table = jnp.arange(12.0).reshape(4, 3)
    read = inference_table(table, jnp.asarray([0.1, 0.5, 0.1, 0.2]), 0.1)
    np.testing.assert_array_equal(read, [[0, 0, 0], table[1], table[1], table[3]])


def test_small_updates_of_a_table_in_bfloat16_add_up():
    # Each step is a fiftieth of the distance between neighbours: to the nearest, none would move anything.
    rows, steps, size = 4, 1000, 2.0**-7 / 50
    table = jnp.ones((rows, 4096), jnp.bfloat16)
    ids, gradient = jnp.asarray([1, 2, rows]), jnp.ones((3, 4096)).at[1].set(-1.0)

    def step(table, key):
        return adagrad_rows(table, jnp.full(rows, 1e8), ids, gradient, size * 1e4, key)[0], None

    moved = jax.lax.scan(step, table, jax.random.split(_KEY, steps))[0]
    assert moved.dtype == jnp.bfloat16
    mean = np.asarray(moved, np.float32).mean(1)
    # Below 1 neighbours are half as far apart, so rounding at random is less random there.
    np.testing.assert_allclose(mean, [1, 1 - steps * size, 1 + steps * size, 1], atol=2e-3)
    exact = np.asarray(moved[jnp.asarray([0, 3])], np.float32)
    assert (exact == 1).all()


def test_rounding_at_random_takes_one_of_the_two_neighbours():
    x = jnp.asarray(np.random.default_rng(2).normal(size=10_000), jnp.float32)

    def rounded(x):
        bits = table_update._rounded_at_random(x, _KEY)
        return np.asarray(jax.lax.bitcast_convert_type(bits, jnp.bfloat16), np.float32)

    step = 2.0 ** (np.floor(np.log2(np.abs(x))) - 7)
    assert (np.abs(rounded(x) - x) < step).all()
    held = jnp.asarray([0.0, -1.5, np.inf, -np.inf, np.nan])  # what bfloat16 holds stays
    np.testing.assert_array_equal(rounded(held), held)
    largest = jax.lax.bitcast_convert_type(jnp.uint32([0x7FFFFFFF, 0xFFFFFFFF]), jnp.float32)
    assert np.isnan(rounded(largest)).all()  # NVIDIA's NaN, and its negative


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_an_update_copies_neither_table_nor_accumulator(dtype):
    rows, n = 1 << 20, 100

    def update(table, accumulator, ids, weights):
        found = distinct(ids, rows)
        read = read_rows(table, found.ids)
        gradient = jax.grad(lambda read: jnp.sum(weights * read[found.position] ** 2))(read)
        return adagrad_rows(table, accumulator, found.ids, gradient, 0.1, _KEY)

    shapes = (((rows, 4), dtype), ((rows,), jnp.float32), ((n,), jnp.int32), ((n, 4), jnp.float32))
    arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
    compiled = jax.jit(update, donate_argnums=(0, 1)).lower(*arguments).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * rows / 10
