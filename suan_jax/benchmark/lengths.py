"""The time of self-attention against the length of the history, the tokens of a batch held: full with biases,
LightSUAN's, cuDNN's without biases, and plain XLA's."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from suan_jax import kernels
from suan_jax.benchmark.attention import measurements
from suan_jax.benchmark.attention_forms import (
    CUDNN,
    LIGHT,
    PLAIN,
    SOFTMAX,
    Shape,
    abstract_inputs,
    form,
    inputs,
    pairs,
    with_gradients,
)
from suan_jax.benchmark.programs import made
from suan_jax.benchmark.timing import interleaved_if_able

COLUMNS = (
    *("name", "tokens", "batch_size", "window", "dilation", "ms", "ms_low", "ms_high"),
    *("examples_per_second", "peak_share", "visible_pairs", "ratio_to_cudnn", "speedup_over_full"),
)
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
DILATIONS = (2, 4, 8)
_TOKENS = 1 << 17  # of a batch


def rows() -> Iterator[dict[str, Any]]:
    """The rows of a GPU that the kernels run on; of another device one, with the reason."""
    shape = Shape(1, 1)
    why = kernels.refusal(shape.head_dim, jnp.bfloat16)
    if why:
        yield {"name": "lengths", "skipped": why}
        return
    yield from measure([Shape(_TOKENS // tokens, tokens) for tokens in LENGTHS])


def measure(
    shapes: Sequence[Shape],
    dilations: tuple[int, ...] = DILATIONS,
    repeats: int = 11,
    interpret: bool = False,
) -> Iterator[dict[str, Any]]:
    """Compiles everything at once, and times what is of one length in turns, forward with backward.

    Args:
      shapes: one for each length; LightSUAN's dilation in them is not read.
      dilations: r of LightSUAN.
      repeats: measurements of each.
      interpret: whether to run without a GPU.

    Yields:
      A row each: shape, ms with its quartiles, the share of the peak, pairs of tokens of an example of which
      one sees the other, the ratio to cuDNN's time and, for LightSUAN's, how many times as fast as full
      attention by the kernel it is. A row with the reason for what cannot run.
    """
    forms = {shape: _forms(shape, dilations) for shape in shapes}
    programs, reasons = made(
        {
            (shape, name): functools.partial(_compiled, of, kind, interpret)
            for shape, named in forms.items()
            for name, (kind, of) in named.items()
        }
    )
    for shape, named in forms.items():
        given = inputs(shape, np.random.default_rng(0), candidate_sees=shape.tokens - 1)
        calls = {
            name: lambda _, run=programs[shape, name], given=given: run(*given)
            for name in named
            if (shape, name) in programs
        }
        timings, failed = interleaved_if_able(calls, repeats)
        failed |= {name: why for (other, name), why in reasons.items() if other == shape}
        for name, (kind, of) in named.items():
            row = {"name": name, **dataclasses.asdict(of), "dtype": "bfloat16"}
            if kind != LIGHT:
                row |= {"window": None, "dilation": None}
            if name in failed:
                yield row | {"skipped": failed[name]}
                continue
            timing, full, cudnn = timings[name], timings.get(SOFTMAX), timings.get(CUDNN)
            row |= measurements(of, timing, kind) | {"visible_pairs": pairs(of, kind)}
            row["ratio_to_cudnn"] = timing.ratio(cudnn) if cudnn else None
            if kind == LIGHT:
                row["speedup_over_full"] = full.ratio(timing) if full else None
            yield row


def _forms(shape: Shape, dilations: tuple[int, ...]) -> dict[str, tuple[str, Shape]]:
    """Name of a row to the form and its sizes."""
    named = {name: (name, shape) for name in (SOFTMAX, CUDNN, PLAIN)}
    for dilation in dilations:
        of = dataclasses.replace(shape, dilation=dilation)
        named[f"LightSUAN, k = {shape.window}, r = {dilation}"] = (LIGHT, of)
    return named


def _compiled(shape: Shape, kind: str, interpret: bool) -> jax.stages.Compiled:
    return jax.jit(with_gradients(form(kind, shape, interpret))).lower(*abstract_inputs(shape)).compile()
