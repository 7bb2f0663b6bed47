"""Studies: many training runs, and what their results say together."""

from suan_jax.studies.compare import compare
from suan_jax.studies.compare_config import CompareConfig
from suan_jax.studies.rung import next_rung
from suan_jax.studies.sweep import sweep
from suan_jax.studies.sweep_config import SweepConfig, grid

__all__ = ["CompareConfig", "SweepConfig", "compare", "grid", "next_rung", "sweep"]
