"""Self-attention with SUAN's relative biases: the kernels beside XLA's plain form, and cuDNN's and PyTorch's
without biases."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from suan_jax import kernels
from suan_jax.benchmark import hardware
from suan_jax.benchmark.attention_forms import (
    CUDNN,
    LIGHT,
    PLAIN,
    SILU,
    SOFTMAX,
    Shape,
    abstract_inputs,
    flops,
    form,
    inputs,
    with_gradients,
)
from suan_jax.benchmark.programs import made, reason
from suan_jax.benchmark.timing import Timing, interleaved_if_able

COLUMNS = (
    *("name", "batch_size", "tokens", "heads", "head_dim", "dtype", "forward_ms", "ms", "ms_low", "ms_high"),
    *("examples_per_second", "peak_share", "ratio_to_cudnn", "ratio_to_published", "speedup_over_plain"),
    *("kernel_ratio_to_pytorch", "error"),
)
TORCH = "PyTorch SDPA, causal, no bias"


@dataclasses.dataclass(frozen=True)
class Size:
    """What is timed at one shape.

    Attributes:
      shape: of the arrays.
      names: the forms.
      published: ms, forward and with the backward pass, that NVIDIA published for its HSTU kernel on an H100
        at this shape.
    """

    shape: Shape
    names: tuple[str, ...] = (PLAIN, CUDNN, SOFTMAX)
    published: tuple[float, float] | None = None


SIZES = (
    Size(Shape(512, 256), (PLAIN, CUDNN, SOFTMAX, SILU), (0.199, 0.624)),
    Size(Shape(128, 1024)),
    Size(Shape(64, 1024), (SILU,), (0.146, 0.493)),
)
_CHECKED = Shape(4, 200, window=20, dilation=4)


def rows() -> Iterator[dict[str, Any]]:
    """The rows of a GPU that the kernels run on; of another device one, with the reason."""
    why = kernels.refusal(SIZES[0].shape.head_dim, jnp.bfloat16)
    if why:
        yield {"name": "attention", "skipped": why}
        return
    yield from measure(SIZES, check(_CHECKED, np.random.default_rng()))


def check(shape: Shape, random: np.random.Generator, interpret: bool = False) -> dict[str, float]:
    """The largest relative error of each kernel's output and five gradients against float32's plain form.

    Args:
      shape: of the inputs.
      random: draws them.
      interpret: whether to run without a GPU.
    """
    given = inputs(shape, random, candidate_sees=shape.tokens // 2)
    errors = {}
    for name in (SOFTMAX, SILU, LIGHT):
        with jax.default_matmul_precision("highest"):
            exact = (x.astype(jnp.float32) for x in given[:4])
            expected = jax.jit(with_gradients(form(name, shape, exact=True)))(*exact, *given[4:])
        own = jax.jit(with_gradients(form(name, shape, interpret)))(*given)
        results = zip(own, expected, strict=True)
        errors[name] = max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in results)
    return errors


def measure(
    sizes: Sequence[Size], errors: dict[str, float], repeats: int = 15, interpret: bool = False
) -> Iterator[dict[str, Any]]:
    """Compiles all forms at once, and times those of a shape in turns; PyTorch's at last.

    Args:
      sizes: what to measure.
      errors: of `check`.
      repeats: measurements of each.
      interpret: whether to run without a GPU.

    Yields:
      A row each: shape, dtype, ms of a forward pass, ms with quartiles of a forward and a backward pass, its
      useful FLOPs (two products forward, five backward, over pairs that see one another) as a share of the
      device's peak, the ratio to cuDNN's time and to the published one, how many times as fast as plain XLA
      it is, and the kernel's error. A row with the reason for a form that cannot run.
    """
    makers = {
        (size, name, backward): functools.partial(_compiled, size.shape, name, backward, interpret)
        for size in sizes
        for name in size.names
        for backward in (False, True)
    }
    programs, reasons = made(makers)
    for size, name, backward in reasons:
        yield _named(name, size) | {"skipped": reasons[size, name, backward]}
    given: dict[Size, dict[bool, Any]] = {}
    for size in sizes:
        arrays = inputs(size.shape, np.random.default_rng(0), candidate_sees=size.shape.tokens - 1)
        given[size] = {True: arrays, False: [*arrays[:3], *arrays[4:]]}
        timings, failed = interleaved_if_able(_calls(size, programs, given[size]), repeats)
        for (name, _), why in failed.items():
            yield _named(name, size) | {"skipped": why}
        for name in size.names:
            if {(name, False), (name, True)} <= timings.keys():
                yield _row(name, size, timings, errors)
    for size in sizes:
        if CUDNN in size.names:
            yield _torch_row(size, _calls(size, programs, given[size]), given[size][True], repeats)


def _compiled(shape: Shape, name: str, backward: bool, interpret: bool) -> jax.stages.Compiled:
    q, k, v, weight, *rest = abstract_inputs(shape)
    run = form(name, shape, interpret)
    if backward:
        return jax.jit(with_gradients(run)).lower(q, k, v, weight, *rest).compile()
    return jax.jit(run).lower(q, k, v, *rest).compile()


def _calls(
    size: Size, programs: dict[Any, jax.stages.Compiled], given: dict[bool, Any]
) -> dict[tuple[str, bool], Callable[[int], Any]]:
    """Name, and whether with the backward pass, to calls of the forms that compile."""
    return {
        (name, backward): lambda _, run=programs[size, name, backward], given=given[backward]: run(*given)
        for name in size.names
        for backward in (False, True)
        if (size, name, backward) in programs
    }


def _row(
    name: str, size: Size, timings: dict[tuple[str, bool], Timing], errors: dict[str, float]
) -> dict[str, Any]:
    timing, plain, cudnn = (timings.get((other, True)) for other in (name, PLAIN, CUDNN))
    row = _named(name, size) | measurements(size.shape, timing, name)
    row["forward_ms"] = timings[name, False].median() * 1e3
    row["ratio_to_cudnn"] = timing.ratio(cudnn) if cudnn else None
    row["speedup_over_plain"] = plain.ratio(timing) if plain else None
    row["error"] = errors.get(name)
    if name == SILU and size.published:
        forward, both = size.published
        row |= {"published_forward_ms": forward, "published_ms": both}
        row["ratio_to_published"] = row["ms"] / both
    return row


def _named(name: str, size: Size) -> dict[str, Any]:
    return {"name": name, **dataclasses.asdict(size.shape), "dtype": "bfloat16"}


def measurements(shape: Shape, timing: Timing, name: str) -> dict[str, Any]:
    """ms with quartiles of a forward and a backward pass, examples and useful FLOPs per second, and their
    share."""
    done, peak = flops(shape, name) / timing.median(), hardware.peak()
    return {
        **timing.fields(),
        "examples_per_second": shape.batch_size / timing.median(),
        "flops_per_second": done,
        "peak_share": hardware.share(done, peak.flops if peak else None),
    }


def _torch_row(
    size: Size, calls: dict[tuple[str, bool], Callable[[int], Any]], given: Any, repeats: int
) -> dict[str, Any]:
    """PyTorch's own attention, in turns with the others: a row of its own, and what they take of its time."""
    try:
        from suan_jax.benchmark import torch_attention
    except ImportError as error:
        return _named(TORCH, size) | {"skipped": f"{error.name} is not installed"}
    try:
        calls = calls | {(TORCH, False): torch_attention.forward(*given[:3])}
        calls[TORCH, True] = torch_attention.with_gradients(*given[:4])
    except RuntimeError as error:
        return _named(TORCH, size) | {"skipped": reason(error)}
    timings, reasons = interleaved_if_able(calls, repeats)
    if (TORCH, True) in reasons or (TORCH, False) in reasons:
        return _named(TORCH, size) | {"skipped": reasons.get((TORCH, True)) or reasons[TORCH, False]}
    row = _row(TORCH, size, timings, {})
    kernel = timings.get((SOFTMAX, True))
    row["kernel_ratio_to_pytorch"] = kernel.ratio(timings[TORCH, True]) if kernel else None
    return row
