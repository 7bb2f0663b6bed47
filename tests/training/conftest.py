import os

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

_SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture(scope="package", autouse=True)
def _compile_once(tmp_path_factory):
    """The runs of one model share what the first of them compiled."""
    directory = str(tmp_path_factory.mktemp("xla"))
    before = {name: getattr(jax.config, name) for name in _SETTINGS}
    for name, value in zip(_SETTINGS, (directory, 0.0), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    variables = {
        "JAX_COMPILATION_CACHE_DIR": directory,  # which also keeps jobs from choosing their own
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setitem(os.environ, name, value)
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
