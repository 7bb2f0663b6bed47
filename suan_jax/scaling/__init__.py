"""Scaling laws: fitted, with intervals, and with what they may be trusted for."""

from suan_jax.scaling.laws import Estimate, Law, fit

__all__ = ["Estimate", "Law", "fit"]
