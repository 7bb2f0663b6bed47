"""SUAN's whole training step beside the same in PyTorch, by `torch.compile`, from batches on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from suan_jax.benchmark import hardware
from suan_jax.benchmark.programs import reason
from suan_jax.benchmark.step import attention_of, useful_share
from suan_jax.benchmark.timing import interleaved_if_able
from suan_jax.benchmark.training_step import compiled_step, host_batches, set_up_step, stepper
from suan_jax.models.suan import Suan

COLUMNS = (
    *("name", "attention", "width", "layers", "max_len", "batch_size", "dtype", "ms", "ms_low", "ms_high"),
    *("examples_per_second", "useful_share", "speedup_over_pytorch", "speedup_over_pytorch_without_biases"),
)
_OURS, _TORCH, _BARE = "suan", "PyTorch", "PyTorch, without biases"


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of a step.

    Attributes:
      width: D.
      layers: blocks.
      heads: H.
      max_len: L, all of it events.
      batch_size: examples of a step.
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


SIZE = Size(256, 4, 4, 256, 512)


def rows() -> Iterator[dict[str, Any]]:
    """The rows of a GPU; of a CPU, or where PyTorch is not installed, one with the reason."""
    if hardware.accelerated():
        yield from measure(SIZE)
        return
    why = "its size is for a GPU, and this machine has none"
    yield {"name": _TORCH, **dataclasses.asdict(SIZE), "skipped": why}


def measure(size: Size, repeats: int = 15, compiled: bool = True) -> Iterator[dict[str, Any]]:
    """Times the steps in turns.

    Args:
      size: what to measure.
      repeats: measurements of each.
      compiled: whether PyTorch compiles its own.

    Yields:
      A row each, of this library's step, PyTorch's, and PyTorch's without either bias, which is less work and
      takes its fastest attention: sizes, ms with its quartiles, examples per second, the useful share of the
      device's peak, and how many times as fast as PyTorch's this library's step is. One row with the reason
      if PyTorch is not there.
    """
    sizes = dataclasses.asdict(size)
    try:
        from suan_jax.benchmark import torch_suan
    except ImportError as error:
        yield {"name": _TORCH, **sizes, "skipped": f"{error.name} is not installed"}
        return
    dtype = "bfloat16" if hardware.accelerated() else "float32"
    model = Suan(layers=size.layers, width=size.width, heads=size.heads, head=size.head, dtype=dtype)
    setup = set_up_step(model, size.max_len, size.batch_size, size.items)
    bare = dataclasses.replace(model, position_bias=False, time_bias=False)
    batches, schema = host_batches(setup), setup.log.schema
    calls, reasons = {_OURS: stepper(setup, compiled_step(setup))}, {}
    for name, definition in ((_TORCH, model), (_BARE, bare)):
        try:
            calls[name] = torch_suan.stepper(definition, schema, batches, compiled)
        except RuntimeError as error:  # PyTorch finds no device, or no memory on it
            reasons[name] = reason(error)
    timings, failed = interleaved_if_able(calls, repeats)
    for name, why in (reasons | failed).items():
        yield {"name": name, **sizes, "skipped": why}
    for name, timing in timings.items():
        row = {
            "name": name,
            **sizes,
            "dtype": dtype,
            **timing.fields(),
            "examples_per_second": size.batch_size / timing.median(),
            "useful_share": useful_share(setup, timing),
        }
        if name == _OURS:
            row["attention"] = attention_of(model, size.width // size.heads)
            columns = {"speedup_over_pytorch": _TORCH, "speedup_over_pytorch_without_biases": _BARE}
            row |= {key: timings[other].ratio(timing) for key, other in columns.items() if other in timings}
        yield row
