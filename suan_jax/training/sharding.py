"""Where arrays live: the device mesh, and the one table that says which axis is split over what."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from suan_jax.batch import Batch
from suan_jax.config import MeshConfig, TrainConfig
from suan_jax.errors import UserError
from suan_jax.models.model import Variables
from suan_jax.processes import is_several
from suan_jax.training.state import TrainState

RULES = {
    "heads": "model",
    "mlp": "model",
    "embed": None,
    "kv": None,
    "vocab": None,
    "layers": None,
}
"""Logical axis of a dense parameter to the mesh axis that splits it; an axis of another name stays whole."""

TABLE_ROWS = ("data", "model")
"""Tables are split by rows over all devices."""


_AUTO = (jax.sharding.AxisType.Auto,) * 2


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh (data, model) over `devices`, those of all processes by default.

    Raises:
      UserError: if the sizes do not use every device exactly once.
    """
    devices = devices or jax.devices()
    sizes = _mesh_sizes(config, len(devices))
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=_AUTO, devices=devices)


def abstract_mesh(config: MeshConfig, count: int) -> AbstractMesh:
    """The same over devices that need not be there, to plan for them.

    Raises:
      UserError: as `make_mesh`.
    """
    sizes = _mesh_sizes(config, count)
    return AbstractMesh(tuple(sizes.values()), tuple(sizes), axis_types=_AUTO)


def _mesh_sizes(config: MeshConfig, count: int) -> dict[str, int]:
    sizes = {"data": config.data, "model": config.model}
    given = math.prod(size for size in sizes.values() if size != -1)
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) == 1 and count % given == 0:
        sizes[free[0]] = count // given
    if math.prod(sizes.values()) != count or min(sizes.values()) < 1:
        raise UserError(
            f"config.mesh data={config.data}, model={config.model} does not fit {count} devices: "
            "their product must be the number of devices, and at most one of them may be -1"
        )
    return sizes


def _fit(mesh: Mesh, spec: PartitionSpec, shape: tuple[int, ...]) -> NamedSharding:
    """A sharding by `spec`, whole along axes that the mesh does not divide."""

    def divides(axes: str | tuple[str, ...] | None, size: int) -> bool:
        names = (axes,) if isinstance(axes, str) else axes or ()
        return size % math.prod(mesh.shape[name] for name in names) == 0

    fitted = [axes if divides(axes, size) else None for axes, size in zip(spec, shape, strict=False)]
    return NamedSharding(mesh, PartitionSpec(*fitted))


def check_batch_size(mesh: Mesh, config: TrainConfig, field: str, candidates: int = 1) -> None:
    """Checks that the data axis divides the rows of a batch.

    Args:
      mesh: from `make_mesh`.
      config: holds the size.
      field: "batch_size" or "eval_batch_size".
      candidates: candidate slots of a row.

    Raises:
      UserError: naming the field.
    """
    size, devices = getattr(config, field), mesh.shape["data"]
    if size % (devices * candidates):
        times = f", times config.data.candidates, {candidates}" if candidates > 1 else ""
        raise UserError(
            f"config.train.{field} is {size}, expected a multiple of the {devices} devices along the mesh's "
            f"data axis{times}"
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are split by rows over the data axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def stacked_sharding(sharding: NamedSharding) -> NamedSharding:
    """The same behind a leading axis that stays whole."""
    return NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))


def own_shards(mesh: Mesh) -> tuple[tuple[int, ...], int]:
    """Which shares of a batch's rows this process assembles, ascending, and how many shares there are.

    The devices along the data axis hold a share each. Processes whose devices split a model and not the
    batch assemble the same shares.
    """
    if not is_several():
        return (0,), 1
    own = jax.process_index()
    held = [any(device.process_index == own for device in row) for row in mesh.devices]
    return tuple(np.flatnonzero(held).tolist()), len(held)


def place_batch(mesh: Mesh, batch: Batch) -> Batch:
    """Puts this process's rows of a NumPy batch on the devices, as one global batch."""
    return place(batch_sharding(mesh), batch)


def place(sharding: NamedSharding, batch: Any) -> Any:
    """The same by a sharding that splits one axis of the leaves by the data axis."""
    if not is_several():
        return jax.device_put(batch, sharding)  # all leaves in one call: half the time
    shards, count = own_shards(sharding.mesh)
    axis = sharding.spec.index("data")

    def placed(leaf: np.ndarray) -> jax.Array:
        size = leaf.shape[axis] // len(shards)
        shape = (*leaf.shape[:axis], size * count, *leaf.shape[axis + 1 :])

        def piece(index: tuple[slice, ...]) -> np.ndarray:
            first = shards.index((index[axis].start or 0) // size) * size
            return leaf[(slice(None),) * axis + (slice(first, first + size),)]

        return jax.make_array_from_callback(shape, sharding, piece)

    return jax.tree.map(placed, batch)


def gather_rows(mesh: Mesh, rows: Any) -> Any:
    """The rows of a batch from all processes, in its order, of a tree of this process's rows, in NumPy."""
    if not is_several():
        return rows
    # JAX would cut 64-bit numbers to 32.
    wide = jax.tree.map(lambda leaf: leaf.dtype.itemsize == 8, rows)
    halved = jax.tree.map(lambda leaf, halve: leaf[..., None].view(np.int32) if halve else leaf, rows, wide)
    whole = multihost_utils.process_allgather(place(batch_sharding(mesh), halved), tiled=True)
    return jax.tree.map(
        lambda leaf, halve, own: np.ascontiguousarray(leaf).view(own.dtype)[..., 0] if halve else leaf,
        whole,
        wide,
        rows,
    )


def state_sharding(
    mesh: Mesh, abstract: TrainState, logical_axes: Variables, optimizer: optax.GradientTransformation
) -> TrainState:
    """A tree of shardings like the state.

    Args:
      mesh: from `make_mesh`.
      abstract: the state's shapes.
      logical_axes: `Model.logical_axes`.
      optimizer: the optimizer whose state mirrors the parameters.
    """
    whole = NamedSharding(mesh, PartitionSpec())
    replicate = lambda tree: jax.tree.map(lambda _: whole, tree)  # noqa: E731
    split_rows = lambda leaf: _fit(mesh, PartitionSpec(TABLE_ROWS), leaf.shape)  # noqa: E731

    def dense(leaf: jax.ShapeDtypeStruct, spec: PartitionSpec) -> NamedSharding:
        return _fit(mesh, PartitionSpec(*(RULES.get(axis) for axis in spec)), leaf.shape)

    params = jax.tree.map(dense, abstract.params, logical_axes["params"])
    opt_state = optax.tree.map_params(
        optimizer,
        lambda _, sharding: sharding,
        abstract.opt_state,
        params,
        transform_non_params=lambda _: whole,
    )
    return TrainState(
        step=whole,
        params=params,
        batch_stats=replicate(abstract.batch_stats),
        constants=replicate(abstract.constants),
        opt_state=opt_state,
        tables=jax.tree.map(split_rows, abstract.tables),
        accumulators=jax.tree.map(split_rows, abstract.accumulators),
        key=whole,
    )
