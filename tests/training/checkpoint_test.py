import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from suan_jax.errors import UserError
from suan_jax.training.checkpoint import Checkpoints, abstract_with_sharding
from suan_jax.training.setup import set_up
from suan_jax.training.state import TrainState
from tests.training.runs import assert_same_bits, take_steps, tiny

_ROWS = 200_000  # of a table large enough that a copy of it takes time


def _state(step: int, rows: int = 64) -> TrainState:
    """A state of some arrays, different at each step."""
    table_key, key = jax.random.split(jax.random.key(step))
    return TrainState(
        step=jnp.int32(step),
        params={"kernel": jnp.arange(6.0).reshape(2, 3) + step},
        batch_stats={},
        constants={},
        opt_state=({"count": jnp.int32(step)},),
        tables={"item": jax.random.normal(table_key, (rows, 4))},
        accumulators={"item": jnp.full(rows, 0.5 + step)},
        key=key,
    )


def _abstract(rows: int = 64) -> TrainState:
    state = _state(0, rows)
    return abstract_with_sharding(jax.eval_shape(lambda: state), jax.tree.map(lambda x: x.sharding, state))


def _saved(directory, steps, keep=10, best=None) -> None:
    checkpoints = Checkpoints(directory, keep)
    if best is not None:
        checkpoints.keep(best)
    for step in steps:
        checkpoints.save(_state(step), {"next_index": step}, {"examples": 8 * step}, {"seed": 1})
    checkpoints.close()


def _restored(directory, read_only=False, first=None):
    checkpoints = Checkpoints(directory, read_only=read_only)
    try:
        return checkpoints.restore(_abstract(), first)
    finally:
        checkpoints.close()


@pytest.mark.smoke
def test_the_newest_comes_back_as_it_was(tmp_path):
    _saved(tmp_path / "c", [1, 3])
    state, beside = _restored(tmp_path / "c")
    assert_same_bits(state, _state(3))
    assert beside == {"iterator": {"next_index": 3}, "clock": {"examples": 24}, "config": {"seed": 1}}
    assert_same_bits(_restored(tmp_path / "c", first=1)[0], _state(1))


def test_a_run_with_tables_in_bfloat16_goes_on_to_the_same_bits(tmp_path):
    losses = {}
    for dtype in ("float32", "bfloat16"):
        setup = set_up(tiny(f"optimizer.embedding_dtype={dtype}"))
        step = setup.compile_step()
        state, first = take_steps(setup, step, setup.fresh_state(), 0, 4)
        checkpoints = Checkpoints(tmp_path / dtype)
        checkpoints.save(state, {}, {}, {})
        checkpoints.close()
        alone, second = take_steps(setup, step, state, 4, 8)
        checkpoints = Checkpoints(tmp_path / dtype, read_only=True)
        again, _ = checkpoints.restore(setup.abstract)
        checkpoints.close()
        assert all(table.dtype == dtype for table in again.tables.values())
        assert_same_bits(take_steps(setup, step, again, 4, 8)[0], alone)
        losses[dtype] = first + second
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=1e-2)
    assert losses["bfloat16"] != losses["float32"]


def test_steps_that_follow_at_once_change_nothing_of_what_is_saved(tmp_path):
    change = jax.jit(
        lambda state: jax.tree.map(lambda leaf: leaf * 3, state.replace(key=state.step, step=state.step + 1)),
        donate_argnums=0,
    )
    state = _state(1, _ROWS).replace(key=jnp.int32(1))
    checkpoints = Checkpoints(tmp_path / "c", keep=10)
    copies = {}
    for step in (1, 2, 3):
        state = state.replace(step=jnp.int32(step))
        copies[step] = jax.tree.map(jnp.copy, state)
        checkpoints.save(state, {}, {}, {})
        for _ in range(3):
            state = change(state)
    abstract = abstract_with_sharding(
        jax.eval_shape(lambda: state), jax.tree.map(lambda x: x.sharding, state)
    )
    for step, copy in copies.items():
        assert_same_bits(checkpoints.restore(abstract, step)[0], copy)
    checkpoints.close()


def test_the_newest_stay_and_the_best(tmp_path):
    _saved(tmp_path / "c", [1, 2, 3, 4, 5], keep=2, best=2)
    assert Checkpoints(tmp_path / "c", read_only=True).steps() == [2, 4, 5]


def test_a_step_is_saved_once(tmp_path):
    _saved(tmp_path / "c", [1])
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(_state(9).replace(step=jnp.int32(1)), {}, {}, {})
    checkpoints.close()
    assert_same_bits(_restored(tmp_path / "c")[0], _state(1))


def _truncate(folder):
    for path in (folder / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(folder):
    path = max((folder / "state").rglob("d/*"), key=lambda path: path.stat().st_size)  # arrays
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _move_iterator(folder):
    path = folder / "iterator" / "metadata"
    path.write_text(path.read_text().replace("3", "4"))


_DAMAGES = {
    "truncated": _truncate,
    "one bit of an array": _flip,
    "another iterator": _move_iterator,
    "no state": lambda folder: shutil.rmtree(folder / "state"),
    "no checksums": lambda folder: (folder / "checksums.json").unlink(),
}


@pytest.mark.parametrize("damage", _DAMAGES.values(), ids=_DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(tmp_path, capfd, damage):
    _saved(tmp_path / "c", [1, 2, 3])
    damage(tmp_path / "c" / "3")
    state, beside = _restored(tmp_path / "c")
    assert_same_bits(state, _state(2))
    assert beside["iterator"] == {"next_index": 2}
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["1", "2"]
    assert (tmp_path / "damaged_checkpoint_3").is_dir()
    sentence = capfd.readouterr().err
    assert sentence.startswith(f"the checkpoint {tmp_path}/c/3 is damaged (")
    assert sentence.endswith(f") and moved to {tmp_path}/damaged_checkpoint_3\n")
    assert sentence.count("\n") == 1


def test_step_3_is_saved_again_after_it_was_set_aside(tmp_path):
    _saved(tmp_path / "c", [2, 3])
    _flip(tmp_path / "c" / "3")
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    checkpoints.restore(_abstract())
    checkpoints.save(_state(3), {}, {}, {})
    checkpoints.close()
    assert_same_bits(_restored(tmp_path / "c")[0], _state(3))


def test_of_damaged_checkpoints_alone_nothing_comes_back(tmp_path):
    _saved(tmp_path / "c", [1, 2])
    for step in "12":
        _truncate(tmp_path / "c" / step)
    assert _restored(tmp_path / "c") is None


def test_a_reader_beside_a_running_job_leaves_everything_in_its_place(tmp_path, capfd):
    _saved(tmp_path / "c", [1, 2])
    _flip(tmp_path / "c" / "2")
    unfinished = tmp_path / "c" / "3.orbax-checkpoint-tmp"
    unfinished.mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert_same_bits(_restored(tmp_path / "c", read_only=True)[0], _state(1))
    assert sorted(tmp_path.rglob("*")) == before
    assert "is altered) and left out" in capfd.readouterr().err
    _saved(tmp_path / "c", [3])  # a writer cleans up
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["1", "2", "3"]


def test_arrays_of_other_shapes_are_refused_and_not_taken_for_damage(tmp_path):
    _saved(tmp_path / "c", [1, 2])
    checkpoints = Checkpoints(tmp_path / "c")
    with pytest.raises(UserError, match=r"c/2 is of another model or log.*accumulators/item, \(64,\)"):
        checkpoints.restore(_abstract(rows=128))
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["1", "2"]
