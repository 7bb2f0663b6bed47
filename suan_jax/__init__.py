"""Scaling studies of click-through-rate models, in JAX and Flax.

`import suan_jax` is all a notebook needs: `suan_jax.models`, `suan_jax.data` and the other parts are imported
when they are first used.
"""

import importlib
import importlib.metadata
from types import ModuleType


def __getattr__(name: str) -> ModuleType | str:
    """Imports the part of the package that is called `name`; `__version__` is the one that is installed."""
    if name == "__version__":
        return importlib.metadata.version("suan-jax")
    full = f"{__name__}.{name}"
    try:
        return importlib.import_module(full)
    except ModuleNotFoundError as error:
        if error.name != full:  # the part is there, and lacks something itself
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
