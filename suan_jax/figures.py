"""How figures of this project look: readable in print, in grey, and for colour-blind eyes."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from suan_jax.files import write_bytes
from suan_jax.notice import notice

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

# Okabe and Ito (2008), "Color Universal Design", black last; markers tell the same apart without colour.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.5,
    "legend.frameon": False,
    "svg.hashsalt": "suan-jax",  # the same figure is the same file
}


def can_draw() -> bool:
    """Whether matplotlib, of the extra `figures`, is installed; says so if not."""
    if importlib.util.find_spec("matplotlib"):
        return True
    notice("no figure is drawn, as matplotlib is not installed: pip install -e '.[figures]'")
    return False


def look(index: int) -> dict[str, str]:
    """Colour and marker of the `index`-th of several things, different for the first 49."""
    shift = index // len(_COLOURS)
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "marker": _MARKERS[(index + shift) % len(_MARKERS)],
    }


@contextlib.contextmanager
def figure(path: Path, width: float = 6.0, height: float = 3.8) -> Iterator[Figure]:
    """A figure of `width` × `height` inches, written as PNG and SVG when the block ends.

    Args:
      path: of the files, without a suffix.
      width: in inches.
      height: in inches.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        made = Figure(figsize=(width, height), layout="constrained")
        yield made
        for suffix in ("png", "svg"):
            content = io.BytesIO()
            metadata = {"Date": None} if suffix == "svg" else None
            made.savefig(content, format=suffix, dpi=200, metadata=metadata)
            write_bytes(path.with_suffix(f".{suffix}"), content.getvalue())


def legend_below(drawn: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """One legend for all panels, below them, in as many columns as the figure is wide enough for."""
    for columns in range(len(labels), 0, -1):
        legend = drawn.legend(handles, labels, loc="outside lower center", ncols=columns)
        drawn.draw_without_rendering()
        if columns == 1 or legend.get_window_extent().width <= drawn.bbox.width:
            return
        legend.remove()
