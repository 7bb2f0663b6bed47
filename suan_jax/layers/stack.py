"""Blocks of one kind on top of one another, with parameters stacked along a first axis."""

from __future__ import annotations

import jax
from flax import linen as nn

from suan_jax.layers import history_cache

_MOST_UNROLLED = 16


def stacked(block: type[nn.Module], layers: int, remat: bool, arguments: int) -> type[nn.Module]:
    """A module of `layers` blocks, each with parameters of its own, stacked along a first axis.

    Args:
      block: called as `block(x, *arguments)`; returns the next x, and nothing to stack.
      layers: number of blocks.
      remat: whether a block is computed again in the backward pass, to save memory.
      arguments: how many arguments after x every block is given alike.
    """
    unroll = _unroll(layers)
    if remat:
        # A loop keeps the two computations apart by itself.
        block = nn.remat(block, prevent_cse=unroll > 1)
    return nn.scan(
        block,
        variable_axes={"params": 0, history_cache.COLLECTION: 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast,) * arguments,
        length=layers,
        unroll=unroll,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )


def _unroll(layers: int) -> int:
    """Blocks to an iteration of the scan: all on an accelerator, unless they are many.

    A loop copies what each block keeps for the backward pass into stacked arrays and back, which took a third
    of a step on an H200. On a CPU compilation counts for more.
    """
    return layers if layers <= _MOST_UNROLLED and jax.default_backend() != "cpu" else 1
