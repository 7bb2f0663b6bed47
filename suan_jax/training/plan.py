"""What a run would put on each device of a machine that need not be there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from suan_jax.config import Config
from suan_jax.data.block import Log
from suan_jax.data.log import open_log
from suan_jax.errors import UserError, nearest
from suan_jax.layers.embedding import ROW_MULTIPLE
from suan_jax.schema import Schema
from suan_jax.table import print_table
from suan_jax.training.setup import Setup, set_up
from suan_jax.training.sharding import abstract_mesh

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
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    spec: str
    bytes_per_device: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where a run's state lives.

    Attributes:
      arrays: its arrays, the largest first.
      table_rows: rows of all tables.
      bytes_per_device: size of the state on one device; gradients and activations come on top.
    """

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
      UserError: if the log has no such vocabulary, a number is out of range, or the mesh does not fit.
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
    return set_up(config, _Resized(log, schema), abstract_mesh(config.mesh, devices))


def plan(setup: Setup) -> Plan:
    """Where the arrays of a run's state live."""
    arrays = []
    for path, leaf in jax.tree.leaves_with_path(setup.abstract):
        piece = jax.ShapeDtypeStruct(leaf.sharding.shard_shape(leaf.shape), leaf.dtype)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = _spec(leaf)
        arrays.append(Placement(name, leaf.shape, str(leaf.dtype), spec, piece.size * leaf.dtype.itemsize))
    arrays.sort(key=lambda array: (-array.bytes_per_device, array.name))
    rows = sum(table.shape[0] for table in setup.abstract.tables.values())
    return Plan(tuple(arrays), rows, sum(array.bytes_per_device for array in arrays))


def _spec(leaf: jax.ShapeDtypeStruct) -> str:
    def text(axes: str | tuple[str, ...] | None) -> str:
        return "-" if axes is None else axes if isinstance(axes, str) else "*".join(axes)

    axes = (*leaf.sharding.spec, *(None,) * len(leaf.shape))
    return ", ".join(text(axis) for axis in axes[: len(leaf.shape)])


def print_plan(plan: Plan, devices: int, least: int = 0) -> None:
    """Prints a plan.

    Args:
      plan: the plan.
      devices: how many it is for.
      least: bytes per device from which an array has a line of its own.
    """
    shown = [array for array in plan.arrays if array.bytes_per_device >= least]
    lines = [
        (array.name, " x ".join(map(str, array.shape)), array.dtype, array.spec, array.bytes_per_device)
        for array in shown
    ]
    columns = ("array", "shape", "dtype", "split by", "bytes per device")
    print_table(f"the state on each of {devices} devices", columns, lines)
    left = len(plan.arrays) - len(shown)
    print(
        f"{plan.table_rows:,} table rows; {plan.bytes_per_device:,} bytes per device"
        + (f", with {left} smaller arrays" if left else "")
        + "; gradients and activations come on top"
    )
