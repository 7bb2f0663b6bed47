"""What a model is: a Flax module, the tables it reads, and a registry of both by name.

Arrays are named with their shapes in models and layers: B rows, L history slots, M candidates, T = L + M
tokens, or T queries and S keys; H heads of width Dh; D the width of a state, S of what the head reads, d of a
feature's embedding, E of all features of an event, Q of those of a candidate, C of keys before they are split
in heads; K events retrieved. A file says what it means by other letters, or by one of these if it differs.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from suan_jax.batch import Batch
from suan_jax.config import Config, ModelConfig
from suan_jax.errors import UserError
from suan_jax.layers import embedding, history_cache
from suan_jax.schema import Schema

Variables = dict[str, Any]

TRAINING_PASSES = 3
"""Forward passes that a training step costs: a backward pass has twice the products of a forward one."""


@struct.dataclass
class Output:
    """What a model returns.

    Attributes:
      logits: (B, M) float32, log-odds of a click; meaningless at candidates that are pads.
      depth_logits: (n + 1, B, M) float32 for a model that scores after each of n loops, else None.
      depth_weights: (n + 1,) float32 beside them, how much the loss of each depth counts; they sum to 1.
      auxiliary: name to scalar loss, already weighted, added to the training loss and reported apart.
      diagnostics: name to scalar, reported as it is.
    """

    logits: jax.Array
    depth_logits: jax.Array | None = None
    depth_weights: jax.Array | None = None
    auxiliary: dict[str, jax.Array] = struct.field(default_factory=dict)
    diagnostics: dict[str, jax.Array] = struct.field(default_factory=dict)


class Loops(NamedTuple):
    """How often a looped model's block is called.

    Attributes:
      trained: n, calls in training.
      inferred: calls behind `Output.logits` unless a caller asks for another depth, 0 to n.
    """

    trained: int
    inferred: int


class ModelDefinition(ModelConfig):
    """What a model's config adds to `ModelConfig`: how to build it and what it costs.

    A model is one file: a dataclass that derives from this, and the Flax module that it builds. The module
    is called as `module(rows, batch, train)` with `rows` as in `embedding.Rows` and returns an `Output`.

    A looped model, one that scores after each of n calls of a block, says so by `loops` and keeps the calls
    that it infers with in a field `inferred_loops`; its FLOPs are those at that depth. Training computes
    `Output.depth_logits`. Evaluation may call its module with `loops=i`, which computes `Output.logits` after
    i calls alone, or with `all_depths=True`, which gives `Output.depth_logits` too, in one pass.
    """

    def module(self, schema: Schema, max_len: int) -> nn.Module:
        """The Flax module for logs of this schema and histories of up to `max_len` events."""
        raise NotImplementedError

    def lookups(self, schema: Schema) -> tuple[embedding.Lookup, ...]:
        """The embedding lookups it needs; every feature at `embedding_width` unless overridden."""
        return embedding.feature_lookups(schema, self.embedding_width)

    def compute_dtype(self) -> jnp.dtype:
        """The dtype of activations.

        Raises:
          UserError: if `dtype` names no dtype that models compute in.
        """
        if self.dtype not in ("float32", "bfloat16"):
            raise UserError(f"config.model.dtype is {self.dtype!r}, expected float32 or bfloat16")
        return jnp.dtype(self.dtype)

    def across_time_refusal(self) -> str:
        """Why one row cannot hold a user's candidates of different times; empty if their scores are exact.

        Rows of one request are always exact. A caller that packs across time asks first: a traced batch
        does not show what it was packed from.
        """
        return f"{self.name} may let a history state depend on the candidate or on its time"

    def cache_refusal(self) -> str:
        """Why `Model.encode` cannot keep what candidates read of a history; empty if it can.

        A model that can calls `history_cache.keep` where it can be kept, and reads it in the same places.
        """
        return f"config.model.name is {self.name!r}, which has no history states beyond the rows it gathers"

    def cache_moment_refusal(self) -> str:
        """Why what was kept holds for the one time of its request; empty if for every later one."""
        return f"config.model.name is {self.name!r}, whose history states may depend on the request's time"

    def loops(self) -> Loops | None:
        """Calls of a looped model's block; None for a model without loops."""
        return None

    def flops_per_example(self, schema: Schema, max_len: int) -> float:
        """Floating-point operations of one forward pass: matrix products as run, 2 per multiply-add.

        The useful ones of a full history, unless a model that computes what is masked away overrides it.
        """
        return self.useful_flops(schema, np.array([max_len]))

    def training_flops_per_example(self, schema: Schema, max_len: int) -> float:
        """The same of a training step, forward and backward.

        A model whose forward pass in training is not the one of inference overrides it.
        """
        return TRAINING_PASSES * self.flops_per_example(schema, max_len)

    def training_flops_per_row(self, schema: Schema, max_len: int, candidates: int) -> float:
        """The same of a row of M `candidates` on one history, whether its slots are filled or not.

        M examples, unless a model that computes the history's states once for all of them overrides it.
        """
        return candidates * self.training_flops_per_example(schema, max_len)

    def useful_flops(self, schema: Schema, lengths: np.ndarray) -> float:
        """The same, counting only valid tokens and visible pairs; the mean over history `lengths` (n,)."""
        raise NotImplementedError


_REGISTRY: dict[str, type[ModelDefinition]] = {}


def register(cls: type[ModelDefinition]) -> type[ModelDefinition]:
    """Makes a config class, a dataclass with a default `name`, known as `--config.model.name=NAME`.

    Raises:
      UserError: if a model of this package has that name.
    """
    known = _REGISTRY.get(cls.name, cls)
    if known.__module__.startswith("suan_jax.") and known.__module__ != cls.__module__:
        raise UserError(f"{cls.__qualname__} is named {cls.name!r}, as a model of {known.__module__} is")
    _REGISTRY[cls.name] = cls
    return cls


def registered() -> dict[str, type[ModelDefinition]]:
    """Model names to their config classes."""
    return dict(_REGISTRY)


@dataclasses.dataclass(frozen=True)
class Model:
    """A model for one schema: init and apply on whole batches.

    Attributes:
      config: the model's own config.
      schema: the log's schema.
      module: the Flax module that works on gathered rows.
      lookups: what it reads from which table.
      embedding_init: standard deviation of the tables' initial rows.
      embedding_dtype: their dtype.
    """

    config: ModelDefinition
    schema: Schema
    module: nn.Module
    lookups: tuple[embedding.Lookup, ...]
    embedding_init: float
    embedding_dtype: str

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Fresh variables {params, tables, batch_stats, constants}; only shapes of `batch` matter."""
        table_key, module_key = jax.random.split(key)
        tables = embedding.init_tables(
            table_key, self.lookups, self.embedding_init, jnp.dtype(self.embedding_dtype)
        )
        rows = embedding.gather(self.lookups, tables, batch)
        variables = nn.meta.unbox(self.module.init(module_key, rows, batch, train=False))
        return {"params": {}, "batch_stats": {}, "constants": {}, **variables, "tables": tables}

    def logical_axes(self, batch: Batch) -> Variables:
        """The logical axis names of every dense variable, a tree of `PartitionSpec` like `init`'s result."""

        def dense(key: jax.Array) -> Variables:
            tables = embedding.init_tables(key, self.lookups, self.embedding_init)
            return self.module.init(key, embedding.gather(self.lookups, tables, batch), batch, train=False)

        axes = nn.get_partition_spec(jax.eval_shape(dense, jax.random.key(0)))
        return {"params": {}, "batch_stats": {}, "constants": {}, **axes}

    def apply(self, variables: Variables, batch: Batch, train: bool = False, **kwargs: Any) -> Any:
        """Scores a batch: an `Output`, or (`Output`, updates) if `mutable` is among `kwargs` (as in Flax)."""
        rows = embedding.gather(self.lookups, variables["tables"], batch)
        return self.apply_rows(variables, rows, batch, train=train, **kwargs)

    def apply_rows(
        self, variables: Variables, rows: embedding.Rows, batch: Batch, train: bool = False, **kwargs: Any
    ) -> Any:
        """The same on rows that were gathered already; `variables` needs no tables."""
        dense = {name: value for name, value in variables.items() if name != "tables"}
        return self.module.apply(dense, rows, batch, train=train, **kwargs)

    def encode(self, variables: Variables, batch: Batch) -> Any:
        """What candidates read of a batch's histories, for `apply_cached`: a tree of arrays.

        Args:
          variables: as for `apply`.
          batch: histories, and for each the one candidate of a request, which sees all of its events; only
            when it is matters.

        Raises:
          UserError: if the model cannot keep a history.
        """
        if reason := self.config.cache_refusal():
            raise UserError(f"histories cannot be kept: {reason}")
        written = self.apply(variables, batch, train=False, mutable=[history_cache.COLLECTION])[1]
        return written[history_cache.COLLECTION]

    def apply_cached(self, variables: Variables, cache: Any, batch: Batch) -> Output:
        """Scores candidates of one request on histories that `encode` has seen, as `apply` would.

        Args:
          variables: as for `apply`.
          cache: what `encode` returned.
          batch: the histories without the ids of their events (see `batch.without_ids`), and the
            candidates. Where the model's `cache_moment_refusal` is empty, it may be of a later time.
        """
        return self.apply({**variables, history_cache.COLLECTION: cache}, batch, train=False)


def build(config: Config, schema: Schema) -> Model:
    """The model that `config.model` describes, for logs of `schema`.

    Raises:
      UserError: if the config is not of a registered model.
    """
    definition = config.model
    if not isinstance(definition, ModelDefinition):
        known = ", ".join(sorted(_REGISTRY))
        raise UserError(f"config.model is a {type(definition).__name__}, expected a model: {known}")
    return Model(
        config=definition,
        schema=schema,
        module=definition.module(schema, config.data.max_len),
        lookups=definition.lookups(schema),
        embedding_init=config.optimizer.embedding_init,
        embedding_dtype=config.optimizer.embedding_dtype,
    )
