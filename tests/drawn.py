"""What a figure shows, read from its SVG."""

import re
from pathlib import Path


def words(figure: Path) -> set[str]:
    """Every text in a figure: labels, ticks and legends."""
    return set(re.findall(r"<!-- (.*?) -->", figure.with_suffix(".svg").read_text()))


def markers(figure: Path) -> int:
    """How many markers a figure has: points, ticks of its axes and in its legends."""
    return len(re.findall(r'<use xlink:href="#m', figure.with_suffix(".svg").read_text()))
