"""Tables for people: drawn on a terminal, aligned text otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import rich.console
import rich.table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _drawn_width(columns: Sequence[str], cells: list[list[str]]) -> int:
    """Characters of a line of the drawn table; wider than the terminal it would lose digits."""
    return 1 + sum(3 + max(map(len, column)) for column in zip(columns, *cells, strict=True))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    console: rich.console.Console | None = None,
) -> None:
    """Prints a table on standard output, drawn where a terminal is wide enough; numbers stand to the right.

    Args:
      title: line above the table.
      columns: names of the columns.
      rows: one value per column; floats are shown with six digits, None as "-".
      console: where it is shown; standard output unless given.

    Raises:
      ValueError: if a row has not one value per column.
    """
    console = console or rich.console.Console()
    rows = [list(row) for row in rows]
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"a row has {len(row)} values for {len(columns)} columns: {row}")
    numeric = [
        all(row[index] is None or isinstance(row[index], (int, float)) for row in rows)
        for index in range(len(columns))
    ]
    cells = [[_cell(value) for value in row] for row in rows]
    if console.is_terminal and _drawn_width(columns, cells) <= console.width:
        table = rich.table.Table(title=title, title_justify="left")
        for name, number in zip(columns, numeric, strict=True):
            table.add_column(name, justify="right" if number else "left")
        for row in cells:
            table.add_row(*row)
        console.print(table, markup=False)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [title]
    for row in [list(columns), *cells]:
        aligned = (
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, numeric, strict=True)
        )
        lines.append("  ".join(aligned).rstrip())
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
