"""Blocks of one kind on top of one another, compiled once whatever their number."""

from __future__ import annotations

from flax import linen as nn

from suan_jax.layers import history_cache


def stacked(block: type[nn.Module], layers: int, remat: bool, arguments: int) -> type[nn.Module]:
    """A module of `layers` blocks, each with parameters of its own, stacked along a first axis.

    Args:
      block: called as `block(x, *arguments)`; returns the next x, and nothing to stack.
      layers: number of blocks.
      remat: whether a block is computed again in the backward pass, to save memory.
      arguments: how many arguments after x every block is given alike.
    """
    if remat:
        block = nn.remat(block, prevent_cse=False)  # a scan keeps the two computations apart by itself
    return nn.scan(
        block,
        variable_axes={"params": 0, history_cache.COLLECTION: 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast,) * arguments,
        length=layers,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
