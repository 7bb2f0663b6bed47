"""The whole training step, its batch on the device already: SUAN with the attention kernel and without, with
remat, without time bias, and on candidates packed across time; DIN; and where the step's time goes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from suan_jax.benchmark import hardware
from suan_jax.benchmark.programs import made, reason
from suan_jax.benchmark.step_pieces import FORWARD, compiled_pieces, piece_calls, split
from suan_jax.benchmark.timing import Timing, interleaved_if_able
from suan_jax.benchmark.training_step import compiled_step, copy, device_batches, set_up_step, stepper
from suan_jax.layers.fused_attention import fuses
from suan_jax.models.din import Din
from suan_jax.models.model import TRAINING_PASSES, ModelDefinition
from suan_jax.models.suan import Suan
from suan_jax.training.setup import Setup

COLUMNS = (
    *("name", "attention", "width", "layers", "max_len", "candidates", "batch_size", "dtype"),
    *("ms", "ms_low", "ms_high", "examples_per_second", "tokens_per_second", "flops_per_second"),
    *("peak_share", "useful_share", "speedup_over_plain", "speedup_over_remat", "speedup_over_unpacked"),
    *("ratio_to_no_time_bias", "share_of_step"),
)
_SUAN, _PLAIN, _REMAT, _TIMELESS = "suan", "suan, plain attention", "suan, remat", "suan without time bias"
_PACKED, _UNPACKED, _PARTS = "suan packed", "suan causal", "parts"


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
      beside: the other steps that are timed in turns with SUAN's, if M is 1.
      pieces: whether the parts of SUAN's step are timed too.
    """

    width: int
    layers: int
    heads: int
    max_len: int
    batch_size: int
    head: tuple[int, ...] = (1024, 512, 256)
    items: int = 1_000_000
    candidates: int = 1
    beside: tuple[str, ...] = (_PLAIN,)
    pieces: bool = False


SMALL = (
    Size(40, 2, 2, 100, 256, beside=(_TIMELESS, "din"), pieces=True),
    Size(40, 2, 2, 200, 128, candidates=16),
)
LARGE = (
    Size(64, 2, 2, 100, 2048, pieces=True),
    Size(128, 4, 4, 200, 1024),
    Size(256, 4, 4, 256, 512, pieces=True),
    Size(512, 8, 8, 256, 256),
    Size(256, 4, 4, 1024, 128),
    Size(1024, 12, 16, 512, 64, beside=(_REMAT,), pieces=True),
    Size(256, 4, 4, 512, 1024, candidates=16),
)


def rows() -> Iterator[dict[str, Any]]:
    """The rows of this machine, and why it cannot run the others."""
    if hardware.accelerated():
        yield from measure(LARGE)
        return
    yield from measure(SMALL)
    for size in LARGE:
        yield _skipped(size, ", ".join(_variants(size)), "its size is for a GPU, and this machine has none")


def measure(sizes: Sequence[Size], repeats: int = 15) -> Iterator[dict[str, Any]]:
    """Compiles all steps at once, then times those of a size in turns.

    Yields:
      A row each: sizes, dtype, ms with its quartiles, examples, tokens (T = L + M a row) and FLOPs (as
      `training_flops_per_row` counts them) per second, the share of the devices' bfloat16 peak that these are
      and that the useful ones are (no pads, no masked pairs, nothing computed again), and how many times as
      fast SUAN is as with plain attention, as with remat, or on packed rows as on as many examples one by
      one. Of a step's parts a row each, with its share of the step. A row with the reason for what cannot
      run.
    """
    setups = {
        (size, name): set_up_step(model, size.max_len, size.batch_size, size.items, candidates)
        for size in sizes
        for name, (model, candidates) in _variants(size).items()
    }
    makers = {key: functools.partial(compiled_step, setup) for key, setup in setups.items()}
    split_up = [size for size in sizes if size.pieces]
    makers |= {(size, _PARTS): functools.partial(compiled_pieces, setups[size, _SUAN]) for size in split_up}
    # Variants of the same parameters start from one state.
    makers |= {
        (size, jax.tree.structure(setup.abstract)): setup.compile_fresh_state
        for (size, _), setup in setups.items()
    }
    programs, reasons = made(makers)
    for (size, name), why in reasons.items():
        yield _skipped(size, name if isinstance(name, str) else "the first state", why)
    for size in sizes:
        mine = {name: setup for (other, name), setup in setups.items() if other == size}
        ready = {name: program for (other, name), program in programs.items() if other == size}
        try:
            yield from _timed(size, mine, ready, repeats)
        except jax.errors.JaxRuntimeError as error:  # no memory for the states and batches
            yield _skipped(size, ", ".join(mine), reason(error))


def _timed(
    size: Size, setups: dict[str, Setup], programs: dict[Any, Any], repeats: int
) -> Iterator[dict[str, Any]]:
    parts = programs.get(_PARTS)
    calls, states, batches = {}, {}, {}
    for name in filter(programs.__contains__, setups):
        setup = setups[name]
        structure, candidates = jax.tree.structure(setup.abstract), setup.config.data.candidates
        if structure not in programs:
            continue
        if structure not in states:
            states[structure] = programs[structure]()
        if candidates not in batches:
            batches[candidates] = device_batches(setup)
        state = states[structure]
        calls[name] = stepper(setup, programs[name], copy(state), batches[candidates])
        if name == _SUAN and parts:
            pieces = piece_calls(parts, state, batches[candidates])
            calls |= {(_PARTS, part): call for part, call in pieces.items()}
    timings, reasons = interleaved_if_able(calls, repeats)
    for name, why in reasons.items():
        yield _skipped(size, f"{_SUAN}: {name[1]}" if isinstance(name, tuple) else name, why)
    for name in filter(timings.__contains__, setups):
        yield _row(name, size, setups[name], timings[name]) | _comparison(name, timings)
    pieces = {name[1]: timing for name, timing in timings.items() if isinstance(name, tuple)}
    if _SUAN in timings and parts and pieces.keys() == parts.keys():
        yield from _part_rows(size, setups[_SUAN], split(timings[_SUAN], pieces), timings[_SUAN])


def _comparison(name: str, timings: dict[Any, Timing]) -> dict[str, float]:
    pairs = {
        "speedup_over_plain": (_SUAN, _PLAIN),
        "speedup_over_remat": (_SUAN, _REMAT),
        "speedup_over_unpacked": (_PACKED, _UNPACKED),
    }
    compared = {
        column: timings[slow].ratio(timings[fast])
        for column, (fast, slow) in pairs.items()
        if name == fast and slow in timings
    }
    if name == _SUAN and _TIMELESS in timings:
        compared["ratio_to_no_time_bias"] = timings[_SUAN].ratio(timings[_TIMELESS])
    return compared


def _variants(size: Size) -> dict[str, tuple[ModelDefinition, int]]:
    """Name of a step to its model and the candidates of its rows."""
    dtype = "bfloat16" if hardware.accelerated() else "float32"
    suan = Suan(layers=size.layers, width=size.width, heads=size.heads, head=size.head, dtype=dtype)
    if size.candidates > 1:
        causal = dataclasses.replace(suan, pool="causal", absolute_position=False)
        return {_PACKED: (causal, size.candidates), _UNPACKED: (causal, 1)}
    others = {
        _PLAIN: dataclasses.replace(suan, attention="plain"),
        _REMAT: dataclasses.replace(suan, remat=True),
        _TIMELESS: dataclasses.replace(suan, time_bias=False),
        "din": Din(head=size.head, dtype=dtype),
    }
    return {_SUAN: (suan, 1), **{name: (others[name], 1) for name in size.beside}}


def _skipped(size: Size, name: str, why: str) -> dict[str, Any]:
    sizes = dataclasses.asdict(size)
    return {"name": name, **{key: sizes[key] for key in COLUMNS if key in sizes}, "skipped": why}


def _row(name: str, size: Size, setup: Setup, timing: Timing) -> dict[str, Any]:
    model, schema = setup.config.model, setup.log.schema
    is_suan = isinstance(model, Suan)
    examples, candidates = size.batch_size / timing.median(), setup.config.data.candidates
    rows = examples / candidates
    flops = rows * model.training_flops_per_row(schema, size.max_len, candidates)
    return {
        "name": name,
        "model": model.name,
        "attention": attention_of(model, size.width // size.heads) if is_suan else None,
        "time_bias": is_suan and model.time_bias,
        "remat": is_suan and model.remat,
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
        "peak_share": _peak_share(setup, flops),
        # The useful pairs of packed rows depend on what each candidate sees.
        "useful_share": useful_share(setup, timing) if candidates == 1 else None,
    }


def attention_of(model: Suan, head_dim: int) -> str:
    """Which form of self-attention the model takes on this machine."""
    return "kernel" if fuses(model.attention, head_dim, model.compute_dtype()) else "plain"


def useful_share(setup: Setup, timing: Timing, passes: float = TRAINING_PASSES) -> float | None:
    """Useful FLOPs of so many forward passes of a batch, in the time of `timing`, as a share of the peak."""
    data = setup.config.data
    useful = setup.config.model.useful_flops(setup.log.schema, np.array([data.max_len]))
    return _peak_share(setup, passes * useful * setup.config.train.batch_size / timing.median())


def _peak_share(setup: Setup, flops: float) -> float | None:
    peak = hardware.peak()
    known = peak is not None and setup.config.model.dtype == "bfloat16"
    return hardware.share(flops, peak.flops * setup.mesh.size if known else None)


def _part_rows(size: Size, setup: Setup, parts: dict[str, Timing], whole: Timing) -> Iterator[dict[str, Any]]:
    passes = {FORWARD: 1, "backward": TRAINING_PASSES - 1}
    for name, timing in parts.items():
        yield {
            "name": f"{_SUAN}: {name}",
            **{key: getattr(size, key) for key in ("width", "layers", "heads", "max_len", "batch_size")},
            "candidates": 1,
            "dtype": setup.config.model.dtype,
            **timing.fields(),
            "useful_share": useful_share(setup, timing, passes[name]) if name in passes else None,
            "share_of_step": timing.ratio(whole),
        }
