"""Metrics, and the loop that computes them over a split."""
