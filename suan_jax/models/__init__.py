"""The model zoo: `build` makes any of them from a config and a schema."""

from suan_jax.models import (  # a model's file registers it
    bst,
    can,
    din,
    eta,
    hstu,
    light_suan,
    loopctr,
    sim,
    suan,
    twin,
)
from suan_jax.models.model import Loops, Model, ModelDefinition, Output, build, register, registered

__all__ = [
    "Loops",
    "Model",
    "ModelDefinition",
    "Output",
    "bst",
    "build",
    "can",
    "din",
    "eta",
    "hstu",
    "light_suan",
    "loopctr",
    "register",
    "registered",
    "sim",
    "suan",
    "twin",
]
