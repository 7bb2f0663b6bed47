"""PyTorch's own attention, `scaled_dot_product_attention`, causal and without biases. Needs torch."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention


class Pending:
    """What PyTorch was told to do and may not have done; JAX waits for it as for arrays of its own."""

    def block_until_ready(self) -> Pending:
        """Waits for the GPU, if there is one."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self


def device() -> torch.device:
    """A GPU that PyTorch can use, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def tensor(array: jax.Array, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """The same numbers on PyTorch's device."""
    return torch.from_numpy(np.asarray(array, np.float32)).to(device(), dtype)


def forward(*qkv: jax.Array) -> Callable[[int], Pending]:
    """Forward passes over q, k, v, (B, T, H, Dh) each."""
    q, k, v = (tensor(x) for x in qkv)

    def call(number: int) -> Pending:
        del number
        with torch.no_grad():
            _attention(q, k, v)
        return Pending()

    return call


def with_gradients(*arrays: jax.Array) -> Callable[[int], Pending]:
    """Forward and backward passes over q, k, v and the weights of a loss."""
    q, k, v, weight = (tensor(x) for x in arrays)
    for x in (q, k, v):
        x.requires_grad_()

    def call(number: int) -> Pending:
        del number
        torch.autograd.grad(_attention(q, k, v), (q, k, v), weight)
        return Pending()

    return call


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    by_head = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(*by_head, is_causal=True).transpose(1, 2)
