"""The whole training step, its batch on the device already: SUAN with and without time bias, and DIN; and
SUAN on candidates packed across time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from suan_jax.batch import Batch
from suan_jax.benchmark import hardware
from suan_jax.benchmark.random_inputs import full_batch
from suan_jax.benchmark.timing import Timing, interleaved
from suan_jax.config import Config, DataConfig, SyntheticConfig, TrainConfig
from suan_jax.models.din import Din
from suan_jax.models.model import ModelDefinition
from suan_jax.models.suan import Suan
from suan_jax.training.setup import Setup, set_up
from suan_jax.training.sharding import place_batch
from suan_jax.training.step import TrainStep

COLUMNS = (
    *("name", "width", "layers", "max_len", "candidates", "batch_size", "dtype", "ms", "ms_low", "ms_high"),
    *("examples_per_second", "tokens_per_second", "flops_per_second", "peak_share"),
    *("ratio_to_no_time_bias", "ratio_to_unpacked"),
)
_BATCHES = 4  # taken in turns


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of a step.

    Attributes:
      width: D of SUAN; DIN's is that of the features side by side.
      layers: SUAN's blocks.
      heads: SUAN's H.
      max_len: L, all of it events.
      batch_size: examples of a step, every candidate slot one.
      head: widths of the head.
      items: items of the catalogue; the other vocabularies are small.
      candidates: M. Above 1, SUAN is timed on rows of M candidates across time, and on the same number of
        examples one by one.
    """

    width: int
    layers: int
    heads: int
    max_len: int
    batch_size: int
    head: tuple[int, ...] = (1024, 512, 256)
    items: int = 1_000_000
    candidates: int = 1


SMALL = (Size(40, 2, 2, 100, 256), Size(40, 2, 2, 200, 128, candidates=16))
LARGE = (
    Size(64, 2, 2, 100, 2048),
    Size(128, 4, 4, 200, 1024),
    Size(256, 4, 4, 256, 512),
    Size(128, 4, 4, 200, 1024, candidates=16),
)


def rows() -> Iterator[dict[str, Any]]:
    """The rows that this machine can run, and why it cannot run the others."""
    for size in SMALL:
        yield from measure(size)
    for size in LARGE:
        if hardware.accelerated():
            yield from measure(size)
        else:
            yield _skipped(size, "its size is for a GPU, and this machine has none")


def measure(size: Size, repeats: int = 15) -> Iterator[dict[str, Any]]:
    """Times the steps of a size in turns.

    Yields:
      A row each: sizes, dtype, ms with its quartiles, examples, tokens (T = L + M a row) and FLOPs (as
      `training_flops_per_row` counts them) per second, the share of the devices' bfloat16 peak, and the ratio
      of SUAN's time to SUAN's without the time bias, or of packed rows' to that of as many examples one by
      one. One row with the reason if the device cannot run them.
    """
    variants = _variants(size)
    try:
        setups = {
            name: set_up_step(model, size.max_len, size.batch_size, size.items, candidates)
            for name, (model, candidates) in variants.items()
        }
        timings = interleaved({name: stepper(setup) for name, setup in setups.items()}, repeats)
    except jax.errors.JaxRuntimeError as error:  # most often, out of memory
        yield _skipped(size, str(error).partition("\n")[0])
        return
    ratios = {"suan": "suan without time bias", "suan packed": "suan causal"}
    columns = {"suan": "ratio_to_no_time_bias", "suan packed": "ratio_to_unpacked"}
    for name, setup in setups.items():
        row = _row(name, size, setup, timings[name])
        if name in ratios:
            row[columns[name]] = timings[name].ratio(timings[ratios[name]])
        yield row


def _variants(size: Size) -> dict[str, tuple[ModelDefinition, int]]:
    """Name of a step to its model and the candidates of its rows."""
    dtype = "bfloat16" if hardware.accelerated() else "float32"
    suan = Suan(layers=size.layers, width=size.width, heads=size.heads, head=size.head, dtype=dtype)
    if size.candidates > 1:
        causal = dataclasses.replace(suan, pool="causal", absolute_position=False)
        return {"suan packed": (causal, size.candidates), "suan causal": (causal, 1)}
    return {
        "suan": (suan, 1),
        "suan without time bias": (dataclasses.replace(suan, time_bias=False), 1),
        "din": (Din(head=size.head, dtype=dtype), 1),
    }


def _skipped(size: Size, reason: str) -> dict[str, Any]:
    return {"name": ", ".join(_variants(size)), **dataclasses.asdict(size), "skipped": reason}


def set_up_step(
    model: ModelDefinition, max_len: int, batch_size: int, items: int, candidates: int = 1
) -> Setup:
    """The training step of a model.

    Args:
      model: the model.
      max_len: L.
      batch_size: examples of a step.
      items: items of the catalogue.
      candidates: M; above 1, rows are of candidates across time.
    """
    packing = {"packing": "time", "candidates": candidates} if candidates > 1 else {}
    synthetic = SyntheticConfig(users=512, items=items)  # few, for no user is read
    return set_up(
        Config(
            model=model,
            data=DataConfig(synthetic=synthetic, max_len=max_len, **packing),
            train=TrainConfig(batch_size=batch_size, eval_batch_size=batch_size),
        )
    )


def device_batches(setup: Setup) -> list[Batch]:
    """Batches to take in turns, on the device; the same ones for every model."""
    config, random = setup.config, np.random.default_rng(0)
    max_len, candidates = config.data.max_len, config.data.candidates
    rows = config.train.batch_size // candidates
    return [
        place_batch(setup.mesh, full_batch(random, setup.log.schema, rows, max_len, candidates))
        for _ in range(_BATCHES)
    ]


def stepper(setup: Setup, step: TrainStep | None = None) -> Callable[[int], Any]:
    """Takes the training step `number`; the state, donated to it, is kept inside.

    Args:
      setup: of `set_up_step`.
      step: what it compiles to, if that is there already.
    """
    batches = device_batches(setup)
    step = step or setup.compile_step()
    state = setup.fresh_state()

    def call(number: int) -> Any:
        nonlocal state
        state, metrics = step(state, batches[number % _BATCHES])
        return state, metrics

    return call


def _row(name: str, size: Size, setup: Setup, timing: Timing) -> dict[str, Any]:
    model, schema = setup.config.model, setup.log.schema
    is_suan = isinstance(model, Suan)
    examples, candidates = size.batch_size / timing.median(), setup.config.data.candidates
    rows = examples / candidates
    flops = rows * model.training_flops_per_row(schema, size.max_len, candidates)
    peak = hardware.peak()
    known = peak is not None and model.dtype == "bfloat16"
    return {
        "name": name,
        "model": model.name,
        "time_bias": is_suan and model.time_bias,
        "width": size.width if is_suan else len(schema.history) * model.embedding_width,
        "embedding_width": model.embedding_width,
        "layers": size.layers if is_suan else None,
        "heads": size.heads if is_suan else None,
        "max_len": size.max_len,
        "candidates": candidates,
        "batch_size": size.batch_size,
        "table_rows": sum(table.shape[0] for table in setup.abstract.tables.values()),
        "dtype": model.dtype,
        **timing.fields(),
        "examples_per_second": examples,
        "tokens_per_second": rows * (size.max_len + candidates),
        "flops_per_second": flops,
        "peak_share": hardware.share(flops, peak.flops * jax.device_count() if known else None),
    }
