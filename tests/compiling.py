"""How tests compile, which costs far more here than running: quickly, and each program once.

Jobs that a test starts do the same, as the environment tells them.
"""

import atexit
import os
import shutil
import tempfile

import jax

_OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,  # threads to compile with cost more than they save
}
if jax.__version_info__ < (0, 11):  # later ones do not know it; it halves the time here
    _OPTIONS["xla_cpu_use_fusion_emitters"] = False
_XLA_FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in _OPTIONS.items())


def compile_quickly() -> None:
    """Leaves out XLA's optimizations, and of each operation the lines that made it."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_XLA_FLAGS}"
    os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
    jax.config.update("jax_traceback_in_locations_limit", 0)


def compile_once() -> None:
    """Keeps what is compiled in a folder of this run of tests, which its workers and their jobs share."""
    if "PYTEST_XDIST_WORKER" not in os.environ:  # which has inherited the folder
        folder = tempfile.mkdtemp(prefix="suan_jax_xla_")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
