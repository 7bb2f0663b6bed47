"""CSV files of a published log: the columns that its publisher names, and what real copies of them bring."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from suan_jax.data.sources.csv_form import check_form
from suan_jax.data.sources.raw_table import FILE_ROW, Check, RawTable
from suan_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class OfficialCsv(RawTable):
    """Comma-separated files, read as text; an empty field and the word NULL are missing values.

    Spaces around the names of a header are dropped, and so is every row that repeats the header, as files
    that were joined have. The official files quote nothing, so a quote is a letter as any other, and a line
    has as many fields as it has commas, and one.

    Attributes:
      header: whether each file starts with its columns' names; else `columns` names the fields by position.
    """

    header: bool = True

    def _scan(self, file: Path) -> pl.LazyFrame:
        return self._scan_numbered(file).drop(FILE_ROW)

    def _scan_numbered(self, file: Path) -> pl.LazyFrame:
        rows = pl.scan_csv(
            file,
            has_header=False,
            skip_rows=int(self.header),
            schema=dict.fromkeys(self.columns, pl.String),
            null_values=["NULL", ""],
            quote_char=None,
            row_index_name=FILE_ROW,
            row_index_offset=1,
        )
        return rows.filter(pl.col(self.columns[0]).str.strip_chars().ne_missing(self.columns[0]))


def open_official(
    files: Sequence[Path], columns: Sequence[str], publication: str, header: bool = True
) -> OfficialCsv:
    """Opens files of the same columns and checks the form of every line.

    Args:
      files: the files, at least one.
      columns: names of the columns, which a header may have in any order, among others; without a header,
        in the order of the file.
      publication: name of the published log, for errors.
      header: whether the files have one.

    Raises:
      UserError: if a file or a column is missing, a file is empty, or a line has another number of fields.
    """
    for file in files:
        if not file.is_file():
            raise UserError(f"{file} is missing, expected a file of {publication}")
    names = _header(files[0]) if header else tuple(columns)
    for column in columns:
        if column not in names:
            raise UserError(
                f"{files[0]}: column {column!r} is missing, expected the columns of {publication}: "
                f"{', '.join(columns)}"
            )
    table = OfficialCsv(tuple(files), names, header)
    for file in files:
        if header and _header(file) != names:
            raise UserError(f"{file}: its header is not that of {files[0]}, expected {', '.join(names)}")
        check_form(file, len(names), header, quotes=False)
        table.require_rows(file)
    return table


def integer(column: str) -> pl.Expr:
    """A column as int64, whether written 7 or 7.0; null where it is neither."""
    return pl.col(column).str.strip_suffix(".0").cast(pl.Int64, strict=False)


def integer_check(column: str, missing: bool = False) -> Check:
    """Values must be integers; and may be missing, if `missing`."""
    bad = integer(column).is_null()
    return Check(column, pl.col(column).is_not_null() & bad if missing else bad, "an integer")


def label_check(column: str) -> Check:
    """Values must be 0 or 1."""
    return Check(column, ~integer(column).is_in([0, 1]).fill_null(False), "a label, 0 or 1")


def _header(file: Path) -> tuple[str, ...]:
    try:
        with file.open("rb") as lines:
            return tuple(name.strip() for name in lines.readline().decode("utf-8-sig").split(","))
    except UnicodeDecodeError:
        raise UserError(f"{file}: its header is not text in UTF-8") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error})") from error
