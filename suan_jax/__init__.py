"""Scaling studies of click-through-rate models, in JAX and Flax."""
