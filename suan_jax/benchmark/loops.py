"""What loops cost in training: LoopCTR by its loops, with and without remat, beside StackCTR."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from suan_jax.benchmark import hardware
from suan_jax.benchmark.programs import made
from suan_jax.benchmark.timing import interleaved_if_able
from suan_jax.benchmark.training_step import lowered_step, set_up_step, stepper
from suan_jax.models.loopctr import LoopCtr, StackCtr
from suan_jax.training.setup import Setup
from suan_jax.training.state import TrainState

COLUMNS = (
    *("name", "loops", "width", "max_len", "batch_size", "dtype", "compile_seconds", "program_lines"),
    *("temporary_bytes", "ms", "ms_low", "ms_high", "ms_per_loop", "ratio_to_no_loops"),
)


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of a step.

    Attributes:
      max_len: L, all of it events.
      batch_size: examples of a step.
      width: D.
      head: widths of the head.
      items: items of the catalogue.
    """

    max_len: int
    batch_size: int
    width: int = 64
    head: tuple[int, ...] = (1024, 512, 256)
    items: int = 100_000


SMALL, LARGE = Size(50, 64), Size(200, 256)
LOOPS = (0, 1, 3, 12)


def rows() -> Iterator[dict[str, Any]]:
    """The rows of this machine."""
    yield from measure(LARGE if hardware.accelerated() else SMALL)


def measure(size: Size, loops: tuple[int, ...] = LOOPS, repeats: int = 15) -> Iterator[dict[str, Any]]:
    """Compiles every training step, and times all in turns.

    Args:
      size: what to measure.
      loops: of training, ascending from 0.
      repeats: measurements of each.

    Yields:
      A row each: seconds of lowering and compiling while the others compile beside it (next to none if
      JAX_COMPILATION_CACHE_DIR holds the program), lines of the program (StableHLO), which do not depend on
      the machine; bytes of the program's temporaries, as XLA plans them; ms of a step with its quartiles; ms
      that a loop adds to the step without loops, and the ratio to that step.
    """
    dtype = "bfloat16" if hardware.accelerated() else "float32"
    models = {
        (name, n): kind(trained_loops=n, width=size.width, head=size.head, dtype=dtype, remat=remat)
        for name, kind, remat in (
            ("loopctr", LoopCtr, False),
            ("loopctr, remat", LoopCtr, True),
            ("stackctr", StackCtr, False),
        )
        for n in loops
        if n or name == "loopctr"  # without loops they are one model
    }
    setups = {
        key: set_up_step(model, size.max_len, size.batch_size, size.items) for key, model in models.items()
    }
    programs, reasons = made({key: functools.partial(_compiled, setup) for key, setup in setups.items()})
    calls = {key: stepper(setups[key], program, state()) for key, (program, state, _) in programs.items()}
    timings, failed = interleaved_if_able(calls, repeats)
    for (name, n), why in (reasons | failed).items():
        yield {"name": name, "loops": n, "skipped": why}
    least = timings.get(("loopctr", loops[0]))
    for (name, n), timing in timings.items():
        yield {
            "name": name,
            "loops": n,
            "width": size.width,
            "max_len": size.max_len,
            "batch_size": size.batch_size,
            "dtype": dtype,
            **programs[name, n][2],
            **timing.fields(),
            "examples_per_second": size.batch_size / timing.median(),
            "ms_per_loop": (timing.median() - least.median()) * 1e3 / n if n and least else None,
            "ratio_to_no_loops": timing.ratio(least) if least else None,
        }


def _compiled(
    setup: Setup,
) -> tuple[jax.stages.Compiled, Callable[[], TrainState], dict[str, float]]:
    """The step, what makes its first state, and what compiling the step cost."""
    start = time.perf_counter()
    lowered = lowered_step(setup)
    program = lowered.compile()
    seconds = time.perf_counter() - start
    return (
        program,
        setup.compile_fresh_state(),
        {
            "compile_seconds": seconds,
            "program_lines": lowered.as_text().count("\n"),
            "temporary_bytes": program.memory_analysis().temp_size_in_bytes,
        },
    )
