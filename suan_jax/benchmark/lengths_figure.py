"""The figure of the suite `lengths`: time against length, and against the pairs that the rule leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suan_jax.figures import figure, legend_below, look


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the figure as PNG and SVG.

    Args:
      rows: of `lengths.measure`; those without a time are left out.
      path: of the files, without a suffix.
    """
    timed = [row for row in rows if "ms" in row]
    names = list(dict.fromkeys(row["name"] for row in timed))
    with figure(path, width=9.0, height=4.2) as drawn:
        length, cost = drawn.subplots(1, 2, sharey=True)
        for index, name in enumerate(names):
            curve = sorted((row for row in timed if row["name"] == name), key=lambda row: row["tokens"])
            style = {**look(index), "markersize": 4, "linewidth": 1.2, "label": name}
            ms = [row["ms"] for row in curve]
            length.plot([row["tokens"] for row in curve], ms, **style)
            cost.plot([row["batch_size"] * scored(row) for row in curve], ms, **style)
        tokens = sorted({row["tokens"] for row in timed})
        length.set_xscale("log", base=2)
        length.set_xticks(tokens, [f"{n:,}" for n in tokens])
        length.minorticks_off()
        length.set_xlabel("L, at B · L held")
        length.set_ylabel("ms, forward and backward")
        cost.set_xscale("log")
        cost.set_xlabel("B · L · (k + (L - k) / r); k = L where attention is full")
        length.set_yscale("log")
        legend_below(drawn, *length.get_legend_handles_labels())


def scored(row: Mapping[str, Any]) -> float:
    """L · (k + (L − k) / r), the pairs that LightSUAN's paper counts; L² of full attention."""
    tokens = row["tokens"]
    window = min(row.get("window") or tokens, tokens)
    return tokens * (window + (tokens - window) / (row.get("dilation") or 1))
