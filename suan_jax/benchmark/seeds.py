"""Training steps of several seeds of a small model in one program, against as many one after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from suan_jax.benchmark import hardware
from suan_jax.benchmark.step import attention_of
from suan_jax.benchmark.timing import interleaved_if_able
from suan_jax.benchmark.training_step import BATCHES, copy, host_batches, set_up_step, stepper
from suan_jax.models.suan import Suan
from suan_jax.training.joint import JointStep
from suan_jax.training.setup import Setup
from suan_jax.training.state import TrainState

COLUMNS = (
    *("name", "seeds", "attention", "width", "layers", "max_len", "batch_size", "dtype"),
    *("ms", "ms_low", "ms_high", "examples_per_second", "speedup_over_one_by_one"),
)


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of a step of one seed.

    Attributes:
      max_len: L, all of it events.
      batch_size: examples of a step.
      width: D.
      layers: blocks.
      heads: H.
      head: widths of the head.
      items: items of the catalogue.
    """

    max_len: int = 100
    batch_size: int = 256
    width: int = 40
    layers: int = 2
    heads: int = 2
    head: tuple[int, ...] = (1024, 512, 256)
    items: int = 100_000


SIZE, SEEDS = Size(), (8, 16)


def rows() -> Iterator[dict[str, Any]]:
    """The rows of a GPU, which a small step leaves idle; of a CPU, which it does not, the reason."""
    if hardware.accelerated():
        yield from measure(SIZE, SEEDS)
        return
    sizes = {**dataclasses.asdict(SIZE), "seeds": ", ".join(map(str, SEEDS))}
    yield {"name": "together", **sizes, "skipped": "it is for a GPU, and this machine has none"}


def measure(size: Size, seeds: tuple[int, ...], repeats: int = 15) -> Iterator[dict[str, Any]]:
    """Times a step of one seed and joint steps of several in turns, batches on the device already.

    Yields:
      A row each: sizes, ms with its quartiles, examples of all seeds per second, and how many times as fast
      as one seed after another the joint step takes them.
    """
    dtype = "bfloat16" if hardware.accelerated() else "float32"
    model = Suan(layers=size.layers, width=size.width, heads=size.heads, head=size.head, dtype=dtype)
    setup = set_up_step(model, size.max_len, size.batch_size, size.items)
    state = setup.fresh_state()
    calls = {1: stepper(setup, setup.compile_step(), copy(state))}
    calls |= {count: _together(setup, count, state) for count in seeds}
    timings, reasons = interleaved_if_able(calls, repeats)
    for count in calls:
        name = "one" if count == 1 else "together"
        row = {"name": name, "seeds": count, **dataclasses.asdict(size), "dtype": dtype}
        if count in reasons:
            yield {**row, "skipped": reasons[count]}
            continue
        yield {
            **row,
            "attention": attention_of(model, size.width // size.heads),
            **timings[count].fields(),
            "examples_per_second": count * size.batch_size / timings[count].median(),
            "speedup_over_one_by_one": count * timings[1].ratio(timings[count]) if 1 in timings else None,
        }


def _together(setup: Setup, count: int, state: TrainState) -> Callable[[int], Any]:
    """Joint steps of so many runs, all from `state`: what they compute does not decide how long it takes."""
    train = setup.config.train
    setups = [
        setup.of(dataclasses.replace(setup.config, train=dataclasses.replace(train, seed=seed)))
        for seed in range(count)
    ]
    joint = JointStep(setups)
    batches = [joint.place([batch] * count) for batch in host_batches(setup)]
    state = joint.join([state] * count)

    def call(number: int) -> Any:
        nonlocal state
        state, metrics = joint.step(state, batches[number % BATCHES])
        return state, metrics

    return call
