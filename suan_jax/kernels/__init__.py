"""Kernels for GPUs, each beside its plain reference; they know nothing of batches and models."""

from suan_jax.kernels.attention import Tiles, Tokens, fused_attention, refusal
from suan_jax.kernels.reference import plain_attention

__all__ = ["Tiles", "Tokens", "fused_attention", "plain_attention", "refusal"]
