"""Flags of XLA for tests, where compiling costs far more than running."""

import jax

_OPTIONS = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
if jax.__version_info__ < (0, 11):  # later ones do not know it; it halves the time here
    _OPTIONS["xla_cpu_use_fusion_emitters"] = False

XLA_FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in _OPTIONS.items())
