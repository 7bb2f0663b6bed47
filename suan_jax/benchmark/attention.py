"""Self-attention with SUAN's relative biases: the kernels beside XLA's plain form and cuDNN's without
biases."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from suan_jax import kernels
from suan_jax.benchmark.timing import interleaved
from suan_jax.layers import time_buckets
from suan_jax.layers.attention import attention
from suan_jax.layers.bias import lookup

COLUMNS = (
    *("name", "batch_size", "tokens", "heads", "head_dim", "dtype", "forward_ms", "ms", "ms_low", "ms_high"),
    *("ratio_to_cudnn", "error"),
)
_BASELINE = "cuDNN, causal, no bias"
_EDGES = tuple(int(edge) for edge in time_buckets.DEVICE_EDGES)
_YOUNGEST, _OLDEST = 60.0, 1e7  # ages of events, seconds


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of one attention.

    Attributes:
      batch_size: B.
      tokens: T, of which the last is the candidate.
      heads: H.
      head_dim: Dh.
      window: k of the sparse form.
      dilation: r of it.
    """

    batch_size: int
    tokens: int
    heads: int = 4
    head_dim: int = 64
    window: int = 64
    dilation: int = 8


SIZES = (Size(512, 256), Size(128, 1024))
_CHECKED = Size(4, 200, window=20, dilation=4)


def rows() -> Iterator[dict[str, Any]]:
    """The rows of a GPU that the kernels run on; of another device one, with the reason."""
    reason = kernels.refusal(SIZES[0].head_dim, jnp.bfloat16)
    if reason:
        yield {"name": "attention", "skipped": reason}
        return
    errors = check(_CHECKED, np.random.default_rng())
    for size in SIZES:
        yield from measure(size, errors)


def check(size: Size, random: np.random.Generator, interpret: bool = False) -> dict[str, float]:
    """The largest relative error of each kernel's output and five gradients against float32's plain form.

    Args:
      size: of the inputs.
      random: draws them.
      interpret: whether to run without a GPU.
    """
    inputs = _inputs(size, random, candidate_sees=size.tokens // 2)
    errors = {}
    for name, options in _kernels(size).items():
        plain = functools.partial(kernels.plain_attention, **options)
        fused = functools.partial(kernels.fused_attention, interpret=interpret, **options)
        with jax.default_matmul_precision("highest"):
            exact = (x.astype(jnp.float32) for x in inputs[:4])
            expected = jax.jit(functools.partial(_with_gradients, plain))(*exact, *inputs[4:])
        own = jax.jit(functools.partial(_with_gradients, fused))(*inputs)
        results = zip(own, expected, strict=True)
        errors[name] = max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in results)
    return errors


def measure(
    size: Size, errors: dict[str, float], repeats: int = 15, interpret: bool = False
) -> Iterator[dict[str, Any]]:
    """Times all forms in turns.

    Args:
      size: what to measure.
      errors: of `check`.
      repeats: measurements of each.
      interpret: whether to run without a GPU.

    Yields:
      A row each: sizes, dtype, ms of a forward pass, ms with quartiles of a forward and a backward pass, the
      ratio of the latter to cuDNN's, and the kernel's error. A row with the reason for a form that cannot
      run.
    """
    random = np.random.default_rng(0)
    *arrays, tokens = _inputs(size, random, candidate_sees=size.tokens - 1)
    forms = {name: _baseline(name) for name in ("XLA, plain", _BASELINE)}
    forms |= {
        name: functools.partial(kernels.fused_attention, interpret=interpret, **options)
        for name, options in _kernels(size).items()
    }
    calls: dict[tuple[str, bool], Callable[[int], Any]] = {}
    for name, form in forms.items():
        # The inputs are arguments: captured, the compiler would compute with them.
        passes = {False: jax.jit(form), True: jax.jit(functools.partial(_with_gradients, form))}
        q, k, v, weight, *tables = arrays
        given = {False: (q, k, v, tokens, *tables), True: (q, k, v, weight, *tables, tokens)}
        try:
            for backward, run in passes.items():
                jax.block_until_ready(run(*given[backward]))
        except (jax.errors.JaxRuntimeError, RuntimeError, ValueError, NotImplementedError) as error:
            yield {"name": name, **_sizes(size), "skipped": str(error).partition("\n")[0]}
            continue
        for backward, run in passes.items():
            calls[name, backward] = lambda _, run=run, given=given[backward]: run(*given)
    timings = interleaved(calls, repeats)
    for name, backward in timings:
        if backward:
            timing, baseline = timings[name, True], timings.get((_BASELINE, True))
            yield {
                "name": name,
                **_sizes(size),
                "forward_ms": timings[name, False].median() * 1e3,
                **timing.fields(),
                "ratio_to_cudnn": timing.ratio(baseline) if baseline else None,
                "error": errors.get(name),
            }


def _sizes(size: Size) -> dict[str, Any]:
    return {**dataclasses.asdict(size), "dtype": "bfloat16"}


def _kernels(size: Size) -> dict[str, dict[str, Any]]:
    """Name to the options of `fused_attention`."""
    history = size.tokens - 1
    softmax = {"kind": "softmax", "history": history, "scale": size.head_dim**-0.5, "edges": _EDGES}
    return {
        "kernel, softmax": softmax,
        "kernel, silu": softmax | {"kind": "silu", "scale": 1.0, "divisor": size.tokens},
        "kernel, local and dilated": softmax | {"window": size.window, "dilation": size.dilation},
    }


def _inputs(size: Size, random: np.random.Generator, candidate_sees: int) -> list[Any]:
    """q, k, v and the weights of a loss, bfloat16; the two tables; and full histories as `kernels.Tokens`."""
    shape, history = (size.batch_size, size.tokens, size.heads, size.head_dim), size.tokens - 1
    vectors = [jnp.asarray(random.normal(size=shape), jnp.bfloat16) for _ in range(4)]
    tables = [
        jnp.asarray(random.normal(size=n), jnp.float32) for n in (2 * history + 1, time_buckets.TABLE_ROWS)
    ]
    age = np.exp(random.uniform(np.log(_YOUNGEST), np.log(_OLDEST), (size.batch_size, history)))
    age = np.append(-np.sort(-age, axis=1), np.zeros((size.batch_size, 1)), axis=1)
    seen = np.append(np.arange(1, history + 1), candidate_sees)
    integers = (np.broadcast_to(seen, age.shape), age, age)
    return [*vectors, *tables, kernels.Tokens(*(jnp.asarray(x, jnp.int32) for x in integers))]


def _with_gradients(
    form: Callable[..., jax.Array], q, k, v, weight, position, time, tokens
) -> list[jax.Array]:
    """The output of a form and its gradients in q, k, v and, if it takes them, both tables."""

    def run(q, k, v, position, time):
        return form(q, k, v, tokens, position, time)

    out, pull = jax.vjp(run, q, k, v, position, time)
    return [out, *pull(weight.astype(out.dtype))]


def _baseline(name: str) -> Callable[..., jax.Array]:
    def cudnn(q, k, v, tokens, position, time):
        return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")

    def plain(q, k, v, tokens, position, time):
        slot = jnp.arange(q.shape[1])
        index = jnp.broadcast_to(slot - slot[:, None] + q.shape[1] - 2, (q.shape[0], slot.size, slot.size))
        age = tokens.query_time_BxT, tokens.query_time_BxT >= 0
        bias = lookup(position, index) + lookup(time, time_buckets.pair_buckets(*age, *age))
        return attention(q, k, v, bias.astype(q.dtype), jnp.broadcast_to(slot <= slot[:, None], index.shape))

    return cudnn if name == _BASELINE else plain
