"""Runs as rows of a table: what a summary holds, flat, for laws to be fitted on."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

_OF_THE_HEADLINE = ("auc_se", "gauc", "gauc_users", "log_loss", "ne", "calibration", "useful_flops")


def points(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a run: one, or for a looped model one for each number of loops that it is inferred with.

    What a summary knows only of the headline's loops is empty in the other rows.
    """
    row = flat(summary)
    if "auc_by_loops" not in summary:
        return [row]
    headline = row.pop("inferred_loops")
    pairs = zip(summary["auc_by_loops"], summary["flops_by_loops"], strict=True)
    rows = []
    for loops, (auc, flops) in enumerate(pairs):
        hidden = () if loops == headline else _OF_THE_HEADLINE
        known = {name: value for name, value in row.items() if name not in hidden}
        rows.append({**known, "loops_inferred": loops, "auc": auc, "flops_per_example": flops})
    return rows


def flat(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary's numbers and names in columns: nested ones as in params_body, lists left out."""
    row: dict[str, Any] = {}
    for name, value in summary.items():
        if isinstance(value, Mapping):
            row |= {f"{name}_{inner}": item for inner, item in value.items()}
        elif not isinstance(value, (list, tuple)):
            row[name] = value
    return row


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV; a column that a row lacks is empty in it."""
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
