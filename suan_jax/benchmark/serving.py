"""The latency of one request of many candidates: each alone, packed, and on a history that was kept."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from suan_jax.batch import Batch, blank_batch, without_ids
from suan_jax.benchmark import hardware
from suan_jax.benchmark.programs import made, reason
from suan_jax.benchmark.random_inputs import full_batch
from suan_jax.benchmark.timing import interleaved
from suan_jax.config import Config, DataConfig, SyntheticConfig
from suan_jax.data.log import open_log
from suan_jax.models import Model, build
from suan_jax.models.light_suan import LightSuan
from suan_jax.models.suan import Suan
from suan_jax.serving.example import example_request
from suan_jax.serving.ids import log_encoders
from suan_jax.serving.request import RequestEncoder, parse_request

COLUMNS = (
    *("name", "dilation", "max_len", "candidates", "dtype", "ms", "ms_low", "ms_high", "encode_ms"),
    *("examples_per_second", "one_by_one_ms", "packed_ms", "speedup_over_packed", "speedup_over_one_by_one"),
    "kept_bytes",
)
_DILATIONS = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of a request and of the model; the defaults are those that the suite measures.

    Attributes:
      max_len: L, all of it events.
      candidates: M.
      width: D.
      layers: blocks.
      heads: H.
      head: widths of the head.
      items: items of the catalogue.
    """

    max_len: int = 1000
    candidates: int = 1024
    width: int = 128
    layers: int = 4
    heads: int = 4
    head: tuple[int, ...] = (1024, 512, 256)
    items: int = 1_000_000


def rows() -> Iterator[dict[str, Any]]:
    """The rows of the suite."""
    yield from measure(Size())


def measure(size: Size, repeats: int = 15) -> Iterator[dict[str, Any]]:
    """Times one request on SUAN, and on LightSUAN at dilations 1, 2, 4 and 8.

    Yields:
      A row for each model. `ms` with its quartiles is the request on a kept history, `encode_ms` what keeping
      it takes once; `packed_ms` one pass over history and candidates; `one_by_one_ms` is the time of one
      candidate alone, times M: M of them were not run; and how many times as fast the kept history makes the
      request. Batches come from the host, ids already. The last row
      is the host's work before: raw values to a batch, on a warm dictionary.
    """
    dtype = "bfloat16" if hardware.accelerated() else "float32"
    sizes = {"layers": size.layers, "width": size.width, "heads": size.heads, "head": size.head}
    models = {"suan": Suan(**sizes, dtype=dtype)}
    models |= {
        f"light_suan, r = {r}": LightSuan(**sizes, dtype=dtype, dilation=r, window=16) for r in _DILATIONS
    }
    data = DataConfig(synthetic=SyntheticConfig(users=512, items=size.items), max_len=size.max_len)
    schema = open_log(data).schema
    built = {name: build(Config(model=model, data=data), schema) for name, model in models.items()}
    passes = {name: _passes(model, size) for name, model in built.items()}
    programs, reasons = made(
        {
            (name, run): functools.partial(_compiled, *lowered)
            for name, runs in passes.items()
            for run, lowered in runs.items()
        }
    )
    for name, definition in models.items():
        row = {"name": name, "dilation": getattr(definition, "dilation", None)}
        row |= {**dataclasses.asdict(size), "dtype": dtype}
        failed = [why for (other, _), why in reasons.items() if other == name]
        if failed:
            yield row | {"skipped": failed[0]}
            continue
        own = {run: program for (other, run), program in programs.items() if other == name}
        yield _row_if_able(row, functools.partial(_timed, built[name], size, own, repeats))
    row = {"name": "raw values to a batch, on the host"}
    row |= {"max_len": size.max_len, "candidates": size.candidates}
    yield _row_if_able(row, functools.partial(_timed_on_host, data, size, repeats))


def _row_if_able(row: dict[str, Any], measured: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The row with what was measured, or with why nothing was."""
    try:
        return row | measured()
    except Exception as error:  # most often, out of memory; the other rows need not fail with it
        return row | {"skipped": reason(error)}


def _timed(
    model: Model, size: Size, programs: dict[str, jax.stages.Compiled], repeats: int
) -> dict[str, Any]:
    calls, kept_bytes = _calls(model, size, programs)
    timings = interleaved(calls, repeats)
    cached, packed, alone = (timings[call] for call in ("cached", "packed", "alone"))
    return {
        **cached.fields(),
        "examples_per_second": size.candidates / cached.median(),
        "encode_ms": 1e3 * timings["encode"].median(),
        "packed_ms": 1e3 * packed.median(),
        "one_by_one_ms": 1e3 * alone.median() * size.candidates,
        "speedup_over_packed": packed.ratio(cached),
        "speedup_over_one_by_one": size.candidates * alone.ratio(cached),
        "kept_bytes": kept_bytes,
    }


def _requests(model: Model, size: Size) -> tuple[Batch, Batch]:
    """A request of all candidates, and one of one; NumPy arrays."""
    random = np.random.default_rng(0)
    packed, alone = (
        _one_request(full_batch(random, model.schema, 1, size.max_len, count))
        for count in (size.candidates, 1)
    )
    return packed, alone


def _passes(model: Model, size: Size) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """The passes: of each a function, and the shapes of its arguments."""
    packed, alone = _requests(model, size)

    def plain(variables: Any, batch: Batch) -> jax.Array:
        return model.apply(variables, batch).logits

    def cached(variables: Any, cache: Any, batch: Batch) -> jax.Array:
        return model.apply_cached(variables, cache, batch).logits

    start = jax.random.key(0), blank_batch(model.schema, 1, size.max_len)
    variables = jax.eval_shape(model.init, *start)
    cache = jax.eval_shape(model.encode, variables, alone)
    return {
        "init": (model.init, start),
        "cached": (cached, (variables, cache, without_ids(packed))),
        "packed": (plain, (variables, packed)),
        "alone": (plain, (variables, alone)),
        "encode": (model.encode, (variables, alone)),
    }


def _compiled(function: Callable[..., Any], given: tuple[Any, ...]) -> jax.stages.Compiled:
    return jax.jit(function).lower(*given).compile()


def _calls(
    model: Model, size: Size, programs: dict[str, jax.stages.Compiled]
) -> tuple[dict[str, Callable[[int], Any]], int]:
    """The four passes, each a function of the number of its call; and the bytes of what is kept."""
    packed, alone = _requests(model, size)
    variables = programs["init"](jax.random.key(0), blank_batch(model.schema, 1, size.max_len))
    cache, candidates = programs["encode"](variables, alone), without_ids(packed)
    calls = {
        "cached": lambda _: programs["cached"](variables, cache, candidates),
        "packed": lambda _: programs["packed"](variables, packed),
        "alone": lambda _: programs["alone"](variables, alone),
        "encode": lambda _: programs["encode"](variables, alone),
    }
    return calls, sum(x.nbytes for x in jax.tree.leaves(cache))


def _one_request(batch: Batch) -> Batch:
    return batch.replace(
        visible=np.full_like(batch.visible, batch.history_mask.shape[1]),
        candidate_age=np.zeros_like(batch.candidate_age),
    )


def _timed_on_host(data: DataConfig, size: Size, repeats: int) -> dict[str, Any]:
    log = open_log(data)
    requests = RequestEncoder(log.schema, *log_encoders(log), data.max_len)
    body = example_request(requests, size.candidates)
    body["history"] = [{**body["history"][0], "time": body["time"] - n - 1} for n in range(size.max_len)]
    user, candidates = parse_request(body)

    def call(number: int) -> Any:
        del number
        return requests.batch(requests.user(user), candidates, size.candidates).dense

    return interleaved({"host": call}, repeats)["host"].fields()
