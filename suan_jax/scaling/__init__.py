"""Scaling laws: forms, fits, what they may be trusted for."""
