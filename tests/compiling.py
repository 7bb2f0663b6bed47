"""jax.jit for tests, where compiling costs far more than running."""

import functools

import jax

quick_jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
)
