"""Kernels for GPUs, each beside its plain reference."""
