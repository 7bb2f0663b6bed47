"""Training steps beside those of FuxiCTR (PyPI: fuxictr), in turns, on the same batches in memory.

Both train DIN and BST in the same sizes: embeddings of 16, histories of 50 events, an MLP of 1024-512-256,
batches of 1,024. Two settings:

    same optimizer   one architecture, and Adam over whole tables on both sides
    as shipped       here row-wise Adagrad on the rows a batch reads; there Adam over whole tables, and its
                     own cheaper MLP, of ReLU without BatchNorm

Both use all cores. PyTorch gives memory back to the system at every step and pays for it in page faults;
`MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1000000000000` in the environment spares it them: measure so too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax

from suan_jax.batch import Batch
from suan_jax.benchmark.random_inputs import full_batch
from suan_jax.benchmark.timing import interleaved
from suan_jax.config import Config
from suan_jax.models import Model, build
from suan_jax.models.bst import Bst
from suan_jax.models.din import Din
from suan_jax.models.model import ModelDefinition, Variables
from suan_jax.schema import Feature, Schema
from suan_jax.training.optimizer import dense_optimizer, learning_rate_factor, pace
from suan_jax.training.state import init_state
from suan_jax.training.step import loss_terms, train_step

COLUMNS = (
    *("name", "setting", "table_rows", "max_len", "batch_size", "examples_per_second"),
    *("fuxictr_examples_per_second", "speed_ratio"),
)
_BATCHES = 4  # taken in turns
_CATEGORIES, _USERS = 1_000, 10_000
_CLIP = 10.0  # FuxiCTR's default, and this library's


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of both sides.

    Attributes:
      items: items of the catalogue; the other vocabularies have 11,000 ids together.
      max_len: L, all of it events.
      batch_size: B.
      embedding_width: width of a feature's embedding.
      head: widths of the head.
    """

    items: int
    max_len: int = 50
    batch_size: int = 1024
    embedding_width: int = 16
    head: tuple[int, ...] = (1024, 512, 256)


SIZES = (Size(items=89_000), Size(items=989_000))
"""A hundred thousand and a million table rows."""


def rows() -> Iterator[dict[str, Any]]:
    """The rows of all sizes, or why there are none."""
    try:
        from suan_jax.benchmark import fuxictr_models  # noqa: F401
    except ImportError as error:
        reason = f"{error.name} is not installed; pip install -e '.[parity]' brings it"
        yield {"name": "din, bst", "skipped": reason}
        return
    for size in SIZES:
        yield from measure(size)


def measure(size: Size, repeats: int = 15) -> Iterator[dict[str, Any]]:
    """Times each model of both libraries in turns, in both settings.

    Yields:
      A row each: sizes, ms with its quartiles and examples per second of both, and how many times as many
      examples per second as FuxiCTR this library trains, the median over the turns.
    """
    random = np.random.default_rng(0)
    schema = _schema(size)
    batches = [full_batch(random, schema, size.batch_size, size.max_len) for _ in range(_BATCHES)]
    for name, definition in _definitions(size).items():
        for setting, make in (("same optimizer", _dense_adam), ("as shipped", _touched_rows)):
            model = build(Config(model=definition), schema)
            calls = {
                "ours": make(model, batches),
                "theirs": _fuxictr(definition, size, schema, batches, plain=setting == "as shipped"),
            }
            timings = interleaved(calls, repeats)
            ours, theirs = timings["ours"], timings["theirs"]
            yield {
                "name": name,
                "setting": setting,
                "table_rows": sum(schema.tables.values()),
                **dataclasses.asdict(size),
                **ours.fields(),
                **{f"fuxictr_{key}": value for key, value in theirs.fields().items()},
                "examples_per_second": size.batch_size / ours.median(),
                "fuxictr_examples_per_second": size.batch_size / theirs.median(),
                "speed_ratio": theirs.ratio(ours),
            }


def _schema(size: Size) -> Schema:
    item = (Feature("item", "item"), Feature("category", "category"))
    return Schema(
        tables={"item": size.items, "category": _CATEGORIES, "user": _USERS},
        history=item,
        candidate=item,
        profile=(Feature("user", "user"),),
        category="category",
    )


def _definitions(size: Size) -> dict[str, ModelDefinition]:
    sizes = {"embedding_width": size.embedding_width, "head": size.head}
    return {"din": Din(**sizes), "bst": Bst(**sizes)}


def _fuxictr(
    definition: ModelDefinition, size: Size, schema: Schema, batches: list[Batch], plain: bool
) -> Callable[[int], Any]:
    """Training steps of FuxiCTR's model."""
    from suan_jax.benchmark import fuxictr_models

    model = fuxictr_models.of(definition, schema, size.max_len, plain)
    inputs = [fuxictr_models.inputs(batch) for batch in batches]
    return lambda number: model.train_step(inputs[number % _BATCHES]).item()


def _touched_rows(model: Model, batches: list[Batch]) -> Callable[[int], Any]:
    """Training steps as training takes them."""
    config = Config(model=model.config).optimizer
    factor = learning_rate_factor(config)
    optimizer = dense_optimizer(config, model.logical_axes(batches[0])["params"])

    def init(key: jax.Array) -> Any:
        return init_state(key, model, optimizer, config.embedding_initial_accumulator, batches[0])

    own_pace = pace(config, total_steps=1)

    def step(state: Any, batch: Batch) -> tuple[Any, Any]:
        return train_step(model, optimizer, factor, state, batch, own_pace)

    return _repeat(init, step, batches)


def _dense_adam(model: Model, batches: list[Batch]) -> Callable[[int], Any]:
    start, step = whole_table_adam(model)
    return _repeat(lambda key: start(model.init(key, batches[0])), step, batches)


def whole_table_adam(model: Model) -> tuple[Callable[[Variables], Any], Callable[[Any, Batch], Any]]:
    """Adam over every parameter and whole tables: from variables to a state; from that and a batch to the
    next state and the loss."""
    optimizer = optax.chain(optax.clip_by_global_norm(_CLIP), optax.adam(1e-3))

    def start(variables: Variables) -> Any:
        trained = {name: variables[name] for name in ("params", "tables")}
        others = {name: value for name, value in variables.items() if name not in trained}
        return trained, others, optimizer.init(trained)

    def step(state: Any, batch: Batch) -> tuple[Any, Any]:
        trained, others, moments = state

        def loss(trained: Any) -> tuple[jax.Array, Any]:
            output, updates = model.apply({**others, **trained}, batch, train=True, mutable=["batch_stats"])
            return sum(loss_terms(output, batch)[0].values()), updates

        (total, updates), gradient = jax.value_and_grad(loss, has_aux=True)(trained)
        changes, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(trained, changes), {**others, **updates}, moments), total

    return start, step


def _repeat(init: Callable, step: Callable, batches: list[Batch]) -> Callable[[int], Any]:
    """Takes the step `number`; the state, donated to it, is kept inside."""
    state = jax.jit(init)(jax.random.key(0))
    batches = [jax.device_put(batch) for batch in batches]
    compiled = jax.jit(step, donate_argnums=0)

    def call(number: int) -> Any:
        nonlocal state
        state, metrics = compiled(state, batches[number % _BATCHES])
        return state, metrics

    return call
