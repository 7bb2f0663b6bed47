import dataclasses

import jax
import numpy as np
import pytest

from suan_jax.data.assembly import assemble, concatenate, join
from suan_jax.data.packing import Packing, pack
from tests.data.random_log import RandomLog, random_log


def reference(
    log: RandomLog, index: int, members: list[int], candidates: int, max_len: int
) -> dict[str, np.ndarray]:
    """The row of some impressions, event by event: path in `Batch` to its value without the batch axis."""
    block = log.block(index)
    last = members[-1]
    sequence = int(np.searchsorted(block.impression_offsets, last, side="right")) - 1
    first = block.event_offsets[sequence]
    shown = [*range(first, first + block.visible[last])][-max_len:]
    moment = int(block.time[last])
    mask = np.zeros(max_len, bool)
    age, timed = np.zeros(max_len, np.int32), np.zeros(max_len, bool)
    example = {}
    for feature in log.schema.history:
        ids = block.event[feature.name]
        history = np.zeros((max_len, *ids.shape[1:]), np.int32)
        for slot, event in enumerate(shown):
            history[slot] = ids[event]
        example[f"history/{feature.name}"] = history
    for slot, event in enumerate(shown):
        mask[slot] = True
        timed[slot] = block.event_timed[event]
        if timed[slot]:
            age[slot] = min(moment - int(block.event_time[event]), 2**31 - 1)

    def of_candidates(column: np.ndarray) -> np.ndarray:
        result = np.zeros((candidates, *column.shape[1:]), column.dtype)
        for slot, row in enumerate(members):
            result[slot] = column[row]
        return result

    example |= {f"candidate/{name}": of_candidates(ids) for name, ids in block.candidate.items()}
    example |= {f"context/{name}": of_candidates(ids) for name, ids in block.context.items()}
    example |= {f"profile/{name}": ids[sequence] for name, ids in block.profile.items()}
    pads = [0] * (candidates - len(members))
    return example | {
        "history_mask": mask,
        "history_age": age,
        "history_timed": timed,
        "candidate_mask": np.arange(candidates) < len(members),
        "candidate_age": np.array([moment - int(block.time[row]) for row in members] + pads),
        "visible": np.array(
            [sum(event < first + block.visible[row] for event in shown) for row in members] + pads
        ),
        "dense": of_candidates(block.dense),
        "week_second": (moment - 4 * 86400) % (7 * 86400),  # 5 January 1970 was a Monday
        "label": of_candidates(block.label),
        "user": block.user[sequence],
        "truth": of_candidates(block.truth["unlimited"]),
    }


def leaves(batch) -> dict[str, np.ndarray]:
    found = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        named = (
            {f"{field.name}/{key}": array for key, array in value.items()} if isinstance(value, dict) else {}
        )
        found |= named or {field.name: value}
    return found


@pytest.mark.smoke
@pytest.mark.parametrize("packing", ["none", "request", "time"])
@pytest.mark.parametrize("max_len", [1, 4, 30])
@pytest.mark.parametrize("seed", range(3))
def test_a_batch_is_what_one_event_at_a_time_gives(max_len, seed, packing):
    log = random_log(seed, blocks=4)
    window = join(log.blocks)
    how = Packing(packing, 1 if packing == "none" else 3, max_len, 0.0)
    found = [
        (index, [int(row) for row in members if row >= 0])
        for index, block in enumerate(log.blocks)
        for members in pack(block, np.arange(len(block.time)), how)
    ]
    starts = np.cumsum([0, *(len(block.time) for block in log.blocks)])
    order = np.random.default_rng(seed).permutation(len(found))
    rows = np.full((len(found), how.candidates), -1)
    for place, number in enumerate(order):
        index, members = found[number]
        rows[place, : len(members)] = starts[index] + np.array(members)
    item = assemble(window, rows, max_len)
    batch = leaves(item.batch)
    for place, number in enumerate(order):
        index, members = found[number]
        expected = reference(log, index, members, how.candidates, max_len)
        assert item.user[place] == expected.pop("user")
        np.testing.assert_array_equal(item.truth["unlimited"][place], expected.pop("truth"))
        assert batch.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(batch[name][place], value, err_msg=name)


def test_arrays_have_the_dtypes_of_a_batch():
    log = random_log(0)
    batch = leaves(assemble(join(log.blocks), np.arange(3)[:, None], 5).batch)
    floats, flags = {"dense", "label"}, {"history_mask", "history_timed", "candidate_mask"}
    for name, array in batch.items():
        assert array.dtype == (np.float32 if name in floats else bool if name in flags else np.int32), name


def test_no_event_at_or_after_the_impression_appears():
    log = random_log(3, blocks=30)
    rows = np.arange(sum(len(block.time) for block in log.blocks))[:, None]
    batch = assemble(join(log.blocks), rows, 20).batch
    assert batch.history_timed.sum() > 100
    assert (batch.history_age[batch.history_timed] > 0).all()


def test_ages_beyond_int32_are_the_greatest_int32():
    log = random_log(1)
    block = next(b for b in log.blocks if b.visible.max(initial=0) > 0)
    ancient = dataclasses.replace(
        block,
        event_time=np.full_like(block.event_time, -(2**40)),
        event_timed=np.ones_like(block.event_timed),
    )
    row = int(block.visible.argmax())
    batch = assemble(join([ancient]), np.array([[row]]), 3).batch
    assert (batch.history_age[batch.history_mask] == 2**31 - 1).all()


def test_missing_rows_are_zero():
    log = random_log(0)
    part = assemble(join(log.blocks), np.arange(3)[:, None], 4)
    item = concatenate([part, part], 8)
    for array, source in zip(jax.tree.leaves(item), jax.tree.leaves(part), strict=True):
        assert array.dtype == source.dtype
        np.testing.assert_array_equal(array[:6], np.concatenate([source, source]))
        assert not array[6:].any()
