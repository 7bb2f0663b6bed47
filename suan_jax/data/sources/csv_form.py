"""The form of a CSV file: in UTF-8, and every row with as many fields as the header."""

from __future__ import annotations

import contextlib
import csv
import gzip
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import polars as pl

from suan_jax.errors import UserError

_LINE = "line"
_GZIP = b"\x1f\x8b"


def check_form(file: Path, fields: int, header: bool = True, quotes: bool = True) -> None:
    """Checks that every row of a CSV file has `fields` fields.

    Reading pads short rows and, where not all columns are asked for, cuts long ones, so that an unquoted
    comma would shift values without a word. A file without quotes takes one streaming pass; with quotes, or
    a row of another length, it is read again row by row, as quoted fields may hold commas and line ends.

    Args:
      file: the file, which may be compressed by gzip.
      fields: how many a row has.
      header: whether the first row is one.
      quotes: whether quotes mean anything; if not, a row is a line, and has a field more than commas.

    Raises:
      UserError: naming the first row (counted from 1, the header aside) that is broken.
    """
    line = pl.col(_LINE)
    odd = line.str.count_matches(",", literal=True) != fields - 1
    if quotes:
        odd |= line.str.contains('"', literal=True)
    try:
        if not pl.scan_lines(file, name=_LINE).select(odd.any()).collect(engine="streaming").item():
            return
    except (pl.exceptions.ComputeError, OSError):
        pass  # invalid UTF-8, whose row is found below, or damage
    row, first = 0, int(not header)
    try:
        with _open(file, quotes) as text, _any_field_size():
            for row, (marks, values) in enumerate(_rows(text) if quotes else _lines(text), first):
                if not _is_text(values):
                    place = f"row {row}" if row else "its header"
                    raise UserError(f"{file}: {place} is not text in UTF-8")
                if marks % 2:
                    raise UserError(
                        f"{file}: row {row} has a quote inside a field, expected the field in quotes and "
                        f"the quote doubled"
                    )
                if len(values) != fields:
                    cause = "the line is broken" + (", or a comma is not quoted" if quotes else "")
                    raise UserError(f"{file}: row {row} has {len(values)} fields, expected {fields}: {cause}")
    except csv.Error as error:
        raise UserError(f"{file}: row {row + 1} has a quote that is not closed right ({error})") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read ({error})") from error


def _rows(text: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Each row's number of quotes, which is even where all are in their place, and its fields."""
    quotes = 0

    def lines() -> Iterator[str]:
        nonlocal quotes
        for line in text:
            quotes += line.count('"')
            yield line

    for values in csv.reader(lines(), strict=True):
        yield quotes, values
        quotes = 0


def _lines(text: TextIO) -> Iterator[tuple[int, list[str]]]:
    """The same of a file in which quotes are letters as any other."""
    return ((0, line.split(",")) for line in text)


def _open(file: Path, quotes: bool) -> TextIO:
    with file.open("rb") as start:
        opener = gzip.open if start.read(len(_GZIP)) == _GZIP else open
    newline = "" if quotes else "\n"
    # Strict decoding would fail ahead of the row.
    return opener(file, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _is_text(values: list[str]) -> bool:
    """Whether the bytes behind the values were UTF-8."""
    try:
        ",".join(values).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def _any_field_size() -> Iterator[None]:
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)
