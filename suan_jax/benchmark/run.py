"""The benchmark job: runs suites, prints their tables, and writes one JSON file."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from suan_jax.benchmark import (
    attention,
    devices,
    fuxictr,
    lengths,
    loops,
    seeds,
    serving,
    step,
    tables,
    torch_step,
)
from suan_jax.benchmark import input as input_suite
from suan_jax.benchmark.lengths_figure import draw
from suan_jax.errors import UserError, nearest
from suan_jax.figures import can_draw
from suan_jax.files import write_json
from suan_jax.paths import check_local
from suan_jax.progress import progress
from suan_jax.table import print_table

SUITES = {
    "step": step,
    "seeds": seeds,
    "devices": devices,
    "loops": loops,
    "attention": attention,
    "lengths": lengths,
    "tables": tables,
    "input": input_suite,
    "serving": serving,
    "torch": torch_step,
    "fuxictr": fuxictr,
}
"""Name to a module with `rows()`, which yields the suite's rows, and `COLUMNS`, those to print."""


def run(names: Sequence[str], out: Path, figure: Path | None = None) -> dict[str, Any]:
    """Runs suites one after another, and writes after each row what was measured so far.

    Args:
      names: of `SUITES`.
      out: the JSON file to write: device, device_count, jax_version, date, suite (those that came to their
        end) and rows. A row has its suite, its name, and either measurements or, as `skipped`, why there are
        none.
      figure: where to draw the suite `lengths`, as PNG and SVG; beside `out`, named like it, unless given.

    Returns:
      What was written.

    Raises:
      UserError: if a suite is unknown, or the file cannot be written there.
    """
    for name in names:
        if name not in SUITES:
            raise UserError(
                f"--suite names {name!r}, expected some of {', '.join(SUITES)}; "
                f"the nearest is {nearest(name, SUITES)}"
            )
    if not names:
        raise UserError(f"--suite is empty, expected some of {', '.join(SUITES)}")
    check_local(out, "a file")
    if not out.parent.is_dir() or out.is_dir():
        raise UserError(f"--out={out} is no place for a file, expected one in a directory that exists")
    if figure is not None:
        check_local(figure, "a file")
    result: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "jax_version": jax.__version__,
        "suite": [],
        "rows": [],
    }
    for name in names:
        for row in _measured(name):
            result["rows"].append({"suite": name, **row})
            _write(out, result)
        result["suite"].append(name)
        _write(out, result)
    lengths_rows = [row for row in result["rows"] if row["suite"] == "lengths" and "ms" in row]
    if lengths_rows and can_draw():
        draw(lengths_rows, (figure or out).with_suffix(""))
    return result


def _measured(name: str) -> Iterator[dict[str, Any]]:
    """The rows of a suite, as they come; its table at the end."""
    rows = []
    with progress(None, f"suite {name}") as done:
        for row in SUITES[name].rows():
            rows.append(row)
            yield row
            done.advance(note=row["name"])
    columns = [*SUITES[name].COLUMNS, "skipped"]
    print_table(name, columns, [[_short(row.get(column)) for column in columns] for row in rows])


def _write(out: Path, result: dict[str, Any]) -> None:
    result["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_json(out, result)


def _short(value: Any) -> Any:
    """A measurement at four digits: the terminal needs no more."""
    return float(f"{value:.4g}") if isinstance(value, float) else value
