"""Studies: many training runs, and what their results say together."""

from suan_jax.studies.compare import compare
from suan_jax.studies.compare_config import CompareConfig

__all__ = ["CompareConfig", "compare"]
