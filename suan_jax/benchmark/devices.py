"""Training on several devices of one host, tables split by rows: how it scales, and where the time goes.

Weak scaling gives every device a batch of the same size, strong scaling splits one batch. What several
devices take longer for than one does at the same batch a device is exchange between them; it is told for the
whole step and for each of its parts (see `step_pieces`): ids and rows of the tables are exchanged in gather
and update, gradients of dense parameters and of rows in the backward pass.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from suan_jax.batch import Batch
from suan_jax.benchmark import hardware
from suan_jax.benchmark.programs import made, reason
from suan_jax.benchmark.step import attention_of, useful_share
from suan_jax.benchmark.step_pieces import compiled_pieces, piece_calls, split
from suan_jax.benchmark.timing import Timing, interleaved_if_able
from suan_jax.benchmark.training_step import (
    BATCHES,
    compiled_step,
    copy,
    device_batches,
    host_batches,
    set_up_step,
    stepper,
)
from suan_jax.models.suan import Suan
from suan_jax.training.setup import Setup
from suan_jax.training.sharding import place_batch

COLUMNS = (
    *("name", "devices", "attention", "width", "layers", "max_len", "batch_size", "dtype"),
    *("ms", "ms_low", "ms_high", "examples_per_second", "useful_share", "efficiency", "speedup_over_one"),
    *("exchange_ms", "share_of_step", "ratio_to_step", "bytes_per_second"),
)
_WEAK, _STRONG, _FED, _INPUT, _PART = "weak", "strong", "batches from the host", "input alone", "part"
_STATE = "first state"
Key = tuple[str, Any]  # kind of a measurement, and its devices or part


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of a step.

    Attributes:
      width: D.
      layers: blocks.
      heads: H.
      max_len: L, all of it events.
      batch_size: examples of a step on one device.
      head: widths of the head.
      items: items of the catalogue.
    """

    width: int
    layers: int
    heads: int
    max_len: int
    batch_size: int
    head: tuple[int, ...] = (1024, 512, 256)
    items: int = 1_000_000


SMALL, LARGE = Size(64, 2, 2, 50, 64, items=100_000), Size(512, 8, 8, 256, 256)


def rows() -> Iterator[dict[str, Any]]:
    """The rows of this host, or why there are none."""
    size = LARGE if hardware.accelerated() else SMALL
    if jax.device_count() == 1:
        why = "there is one device; JAX_NUM_CPU_DEVICES=4 makes four of a CPU"
        yield {"name": _WEAK, **dataclasses.asdict(size), "skipped": why}
        return
    yield from measure(size)


def counts() -> tuple[int, ...]:
    """1, 2, 4 and so on of this host's devices."""
    return tuple(2**power for power in range(jax.device_count().bit_length()))


def measure(size: Size, repeats: int = 15) -> Iterator[dict[str, Any]]:
    """Compiles all steps at once, and times them in turns.

    Yields:
      A row each for weak and for strong scaling on `counts` devices: sizes, ms with its quartiles, examples
      per second, useful share of the devices' peak, and against one device the speed-up and the efficiency,
      which is the speed-up a device. On the most devices: for the weak step and for each of its parts the
      share of the step, and the ms that one device does not take, `exchange_ms`; the step on batches that
      come from the host, against the step; and the host's transfer alone. A row with the reason for what
      cannot run.
    """
    most = counts()[-1]
    setups: dict[Key, Setup] = {(_WEAK, 1): _set_up(size, size.batch_size, 1)}
    for count in counts()[1:]:
        setups[_WEAK, count] = _set_up(size, count * size.batch_size, count)
        setups[_STRONG, count] = _set_up(size, size.batch_size, count)
    makers: dict[Key, Callable[[], Any]] = {
        key: functools.partial(compiled_step, setup) for key, setup in setups.items()
    }
    makers |= {
        (_PART, count): functools.partial(compiled_pieces, setups[_WEAK, count]) for count in (1, most)
    }
    for count in counts():
        makers[_STATE, count] = setups[_WEAK, count].compile_fresh_state
    programs, reasons = made(makers)
    try:
        calls = _calls(setups, programs, most)
    except jax.errors.JaxRuntimeError as error:  # no memory for the states and batches
        yield _sizes(size, _WEAK, most) | {"skipped": reason(error)}
        return
    timings, failed = interleaved_if_able(calls, repeats)
    for (kind, what), why in (reasons | failed).items():
        yield _sizes(size, f"{kind} {what}", most) | {"skipped": why}
    one = timings.get((_WEAK, 1))
    for key in filter(timings.__contains__, setups):
        yield _scaling_row(size, key, setups[key], timings[key], one)
    whole = timings.get((_WEAK, most))
    if whole is None or one is None:
        return
    yield from _part_rows(size, timings, most)
    if (_FED, most) in timings:
        fed = timings[_FED, most]
        yield {
            **_sizes(size, _FED, most),
            **fed.fields(),
            "examples_per_second": most * size.batch_size / fed.median(),
            "ratio_to_step": fed.ratio(whole),
        }
    if (_INPUT, most) in timings:
        moved = sum(leaf.nbytes for leaf in jax.tree.leaves(host_batches(setups[_WEAK, most])[0]))
        placed = timings[_INPUT, most]
        yield {
            **_sizes(size, _INPUT, most),
            **placed.fields(),
            "bytes_per_second": moved / placed.median(),
            "ratio_to_step": placed.ratio(whole),
        }


def _set_up(size: Size, batch_size: int, count: int) -> Setup:
    dtype = "bfloat16" if hardware.accelerated() else "float32"
    model = Suan(layers=size.layers, width=size.width, heads=size.heads, head=size.head, dtype=dtype)
    return set_up_step(model, size.max_len, batch_size, size.items, devices=jax.devices()[:count])


def _calls(setups: dict[Key, Setup], programs: dict[Key, Any], most: int) -> dict[Key, Callable[[int], Any]]:
    calls: dict[Key, Callable[[int], Any]] = {}
    states, batches = {}, {}
    for key in filter(programs.__contains__, setups):
        kind, count = key
        setup = setups[key]
        if (_STATE, count) not in programs:
            continue
        if count not in states:
            states[count] = programs[_STATE, count]()
        placed = device_batches(setup)
        calls[key] = stepper(setup, programs[key], copy(states[count]), placed)
        if kind == _WEAK:
            batches[count] = placed
    for count in {1, most} & batches.keys():
        if (_PART, count) in programs:
            parts = piece_calls(programs[_PART, count], states[count], batches[count])
            calls |= {(f"{_PART} on {count}", part): call for part, call in parts.items()}
    if (_WEAK, most) in calls:
        setup, host = setups[_WEAK, most], host_batches(setups[_WEAK, most])
        step = stepper(setup, _fed(setup, programs[_WEAK, most]), copy(states[most]), host)
        calls[_FED, most] = step
        calls[_INPUT, most] = lambda number: place_batch(setup.mesh, host[number % BATCHES])
    return calls


def _fed(setup: Setup, program: Any) -> Callable[[Any, Batch], Any]:
    """A step on a NumPy batch, which it moves to the devices first, as training does."""
    return lambda state, batch: program(state, place_batch(setup.mesh, batch))


def _sizes(size: Size, name: str, count: int) -> dict[str, Any]:
    sizes = {key: getattr(size, key) for key in ("width", "layers", "heads", "max_len")}
    batch_size = size.batch_size if name == _STRONG else count * size.batch_size
    return {"name": name, "devices": count, **sizes, "batch_size": batch_size}


def _scaling_row(size: Size, key: Key, setup: Setup, timing: Timing, one: Timing | None) -> dict[str, Any]:
    kind, count = key
    model = setup.config.model
    row = _sizes(size, kind, count)
    row |= {
        "attention": attention_of(model, size.width // size.heads),
        "dtype": model.dtype,
        "table_rows": sum(table.shape[0] for table in setup.abstract.tables.values()),
        **timing.fields(),
        "examples_per_second": row["batch_size"] / timing.median(),
        "useful_share": useful_share(setup, timing),
    }
    if one is not None:
        speedup = row["batch_size"] / size.batch_size * one.ratio(timing)
        row |= {"speedup_over_one": speedup, "efficiency": speedup / count}
    return row


def _part_rows(size: Size, timings: dict[Key, Timing], most: int) -> Iterator[dict[str, Any]]:
    """The weak step on the most devices, its parts, and what each takes beyond its time on one device."""
    whole, one = timings[_WEAK, most], timings[_WEAK, 1]
    kinds: Sequence[str] = [f"{_PART} on {count}" for count in (most, 1)]
    pieces = [{what: t for (kind, what), t in timings.items() if kind == wanted} for wanted in kinds]
    parts = {"whole step": (whole, one)}
    if pieces[0] and pieces[0].keys() == pieces[1].keys():
        there, alone = split(whole, pieces[0]), split(one, pieces[1])
        parts |= {name: (there[name], alone[name]) for name in there}
    for name, (timing, own) in parts.items():
        yield {
            **_sizes(size, f"{_WEAK}: {name}", most),
            **timing.fields(),
            "exchange_ms": (timing - own).fields()["ms"],
            "share_of_step": timing.ratio(whole),
        }
