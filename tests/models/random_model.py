"""Models for tests, far from their initial values."""

from __future__ import annotations

import jax
import numpy as np

from suan_jax import models
from suan_jax.batch import Batch
from suan_jax.config import Config, DataConfig, OptimizerConfig
from suan_jax.models import Model, ModelDefinition
from suan_jax.models.model import Variables
from suan_jax.schema import Schema
from suan_jax.training.summary import count_parameters
from tests.random_batch import random_batch, random_schema

# Names of parameters and statistics that do not start at random.
_CONSTANTS = set("alpha beta bias global_bias mean mix read scale scale_alpha scale_beta var write".split())


def random_model(
    config: ModelDefinition, max_len: int = 7, schema: Schema | None = None, noise: float = 0.2
) -> tuple[Model, Variables]:
    """A model and its variables, every parameter moved by noise, so that every part of it shows."""
    model = model_of(config, max_len, schema)
    return model, _variables(model, random_batch(0, model.schema, length=max_len), noise)


def model_of(config: ModelDefinition, max_len: int = 7, schema: Schema | None = None) -> Model:
    """The model alone, whose tables show, too."""
    data, optimizer = DataConfig(max_len=max_len), OptimizerConfig(embedding_init=0.7)
    return models.build(Config(model=config, data=data, optimizer=optimizer), schema or random_schema())


def _variables(model: Model, batch: Batch, noise: float) -> Variables:
    """As `model.init`, drawn by NumPy: a generator compiled for each parameter takes seconds."""
    traced = []

    def constants(batch: Batch) -> list[jax.Array]:
        traced.append(jax.tree.flatten_with_path(model.init(jax.random.key(0), batch)))
        return [leaf for path, leaf in traced[0][0] if path[-1].key in _CONSTANTS]

    initial = iter(jax.jit(constants)(batch))
    rng = np.random.default_rng(0)
    leaves, [(shapes, tree)] = [], traced
    for (collection, *_, name), shape in shapes:
        scale = model.embedding_init if collection.key == "tables" else np.prod(shape.shape[:-1]) ** -0.5
        leaf = next(initial) if name.key in _CONSTANTS else scale * rng.normal(size=shape.shape)
        if collection.key == "params":
            leaf = leaf + noise * rng.normal(size=shape.shape)
        leaves.append(np.asarray(leaf, shape.dtype))
    return jax.tree.unflatten(tree, leaves)


def body_parameters(config: ModelDefinition) -> int:
    """Dense parameters before the head, for logs of `random_schema`."""
    model = models.build(Config(model=config), random_schema())
    shapes = jax.eval_shape(model.init, jax.random.key(0), random_batch(0, model.schema))
    return count_parameters(model, shapes["params"])["body"]


def layer_norm(x: np.ndarray, params: dict[str, np.ndarray]) -> np.ndarray:
    """`norms.LayerNorm` in NumPy."""
    centred = x - x.mean(-1, keepdims=True)
    return params["scale"] * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) + params["bias"]
