"""Distillation: a student learns from a teacher's logits beside the labels (arXiv 2508.15326)."""

from suan_jax.distillation.config import DistillationConfig, DistillConfig
from suan_jax.distillation.job import distill

__all__ = ["DistillConfig", "DistillationConfig", "distill"]
