"""What a run would put on each device of a machine that need not be there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax

from suan_jax.config import Config
from suan_jax.data.block import Log
from suan_jax.data.log import open_log
from suan_jax.errors import UserError, nearest
from suan_jax.layers.embedding import ROW_MULTIPLE
from suan_jax.notice import notice
from suan_jax.schema import Schema
from suan_jax.table import print_table
from suan_jax.training.setup import Setup, set_up
from suan_jax.training.sharding import TABLE_ROWS, abstract_mesh, check_batch_size

MOST_ROWS = 2**31 - ROW_MULTIPLE
"""Rows of the largest table: ids are int32, and tables are padded to a multiple of `ROW_MULTIPLE`."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """An array of the state.

    Attributes:
      name: its path in the state.
      shape: its shape over all devices.
      dtype: its dtype.
      spec: the mesh axes that split each of its axes, "-" for none.
      bytes_per_device: size of the piece on one device.
      undivided: whether it is whole on each device because its size does not divide.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    spec: str
    bytes_per_device: int
    undivided: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where a run's state lives.

    Attributes:
      mesh: sizes of the mesh's axes.
      arrays: its arrays, the largest first.
      table_rows: rows of all tables.
      bytes_per_device: size of the state on one device; gradients and activations come on top.
    """

    mesh: Mapping[str, int]
    arrays: tuple[Placement, ...]
    table_rows: int
    bytes_per_device: int


@dataclasses.dataclass(frozen=True)
class _Resized:
    """A log whose vocabularies have other sizes."""

    log: Log
    schema: Schema

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


def planned_setup(config: Config, devices: int, rows: Mapping[str, int]) -> Setup:
    """The set-up of a run on so many devices, without one of them.

    Args:
      config: the run.
      devices: how many there are.
      rows: vocabulary name to a number of ids that stands for the log's.

    Raises:
      UserError: if the log has no such vocabulary, a number is out of range, or the mesh does not fit the
        devices or divide the batches.
    """
    log = open_log(config.data)
    for name, count in rows.items():
        if name not in log.schema.tables:
            raise UserError(
                f"--rows={name}={count}: {log} has no table {name!r}, the nearest is "
                f"{nearest(name, log.schema.tables)}"
            )
        if not 3 <= count <= MOST_ROWS:
            raise UserError(f"--rows={name}={count} is out of range, expected 3 to {MOST_ROWS}")
    schema = dataclasses.replace(log.schema, tables={**log.schema.tables, **rows})
    mesh = abstract_mesh(config.mesh, devices)
    check_batch_size(mesh, config.train, "batch_size", config.data.candidates)
    check_batch_size(mesh, config.train, "eval_batch_size")
    return set_up(config, _Resized(log, schema), mesh)


def plan(setup: Setup) -> Plan:
    """Where the arrays of a run's state live."""
    mesh = dict(setup.mesh.shape)
    arrays = []
    for path, leaf in jax.tree.leaves_with_path(setup.abstract):
        piece = jax.ShapeDtypeStruct(leaf.sharding.shard_shape(leaf.shape), leaf.dtype)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        size = piece.size * leaf.dtype.itemsize
        # Tables are split by rows over all devices, other arrays over the model axis, if at all.
        over = TABLE_ROWS if name.startswith(("tables/", "accumulators/")) else ("model",)
        pieces = math.prod(mesh[axis] for axis in over)
        undivided = leaf.sharding.is_fully_replicated and all(length % pieces for length in leaf.shape)
        arrays.append(
            Placement(name, leaf.shape, str(leaf.dtype), _spec(leaf), size, bool(leaf.shape) and undivided)
        )
    arrays.sort(key=lambda array: (-array.bytes_per_device, array.name))
    rows = sum(table.shape[0] for table in setup.abstract.tables.values())
    return Plan(mesh, tuple(arrays), rows, sum(array.bytes_per_device for array in arrays))


def _spec(leaf: jax.ShapeDtypeStruct) -> str:
    def text(axes: str | tuple[str, ...] | None) -> str:
        names = (axes,) if isinstance(axes, str) else axes or ()
        return "*".join(name for name in names if leaf.sharding.mesh.shape[name] > 1) or "-"

    axes = (*leaf.sharding.spec, *(None,) * len(leaf.shape))
    return ", ".join(text(axis) for axis in axes[: len(leaf.shape)])


def print_plan(plan: Plan, least: int = 0) -> None:
    """Prints a plan, and a warning if tables or other arrays that it shows are whole on each device.

    Args:
      plan: the plan.
      least: bytes per device from which an array has a line of its own.
    """
    shown = [array for array in plan.arrays if array.bytes_per_device >= least]
    lines = [
        (
            array.name,
            " x ".join(map(str, array.shape)),
            array.dtype,
            array.spec,
            array.bytes_per_device,
            _size(array.bytes_per_device),
        )
        for array in shown
    ]
    devices = math.prod(plan.mesh.values())
    mesh = " x ".join(f"{name} {size}" for name, size in plan.mesh.items())
    columns = ("array", "shape", "dtype", "split by", "bytes per device", "which is")
    print_table(f"the state on each of {devices} devices, {mesh}", columns, lines)
    left = len(plan.arrays) - len(shown)
    print(
        f"{plan.table_rows:,} table rows; {plan.bytes_per_device:,} bytes per device, "
        f"{_size(plan.bytes_per_device)}"
        + (f", with {left} smaller arrays" if left else "")
        + "; gradients and activations come on top"
    )
    if whole := [array.name for array in shown if array.undivided]:
        notice(
            f"whole on each device, as the mesh does not divide their sizes: {', '.join(whole)}; tables are "
            f"padded to a multiple of {ROW_MULTIPLE} rows"
        )


def _size(count: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):.1f} {unit}"
    return f"{count} B"
