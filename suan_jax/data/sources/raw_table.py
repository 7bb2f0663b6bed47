"""A table of the user's: its files, its columns as typed, and the row that is wrong."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from polars import selectors

from suan_jax.data.raw_log import LARGEST
from suan_jax.data.sources.csv_form import check_form
from suan_jax.data.sources.log_spec import TIME_UNITS
from suan_jax.errors import UserError

ROW = "_row"  # position of a row over all files of a table
FILE_ROW = "_file_row"  # its position in its own file, from 1
_EARLIEST = int(datetime.datetime(1971, 1, 1, tzinfo=datetime.UTC).timestamp())
_LATEST = int(datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC).timestamp())


@dataclasses.dataclass(frozen=True)
class Check:
    """A condition that no row may meet.

    Attributes:
      column: the column to name.
      bad: Boolean expression, True at a bad row.
      expected: what was expected, the end of the sentence.
    """

    column: str
    bad: pl.Expr
    expected: str


@dataclasses.dataclass(frozen=True)
class Window:
    """Consecutive rows of one file of a table.

    Attributes:
      file: index of the file.
      first: rows of the file before them.
      before: rows of the table before them.
      count: how many they are at most.
    """

    file: int
    first: int
    before: int
    count: int


@dataclasses.dataclass(frozen=True)
class RawTable:
    """Parquet or CSV files of the same columns, read lazily in the order of their names.

    CSV values are read as text, so that one bad value can be found and named; a text that is a number
    becomes one where a number is asked for, and one that is empty is missing.

    Attributes:
      files: the files.
      columns: names of the columns.
      window: the rows that `scan` gives; None for all.
    """

    files: tuple[Path, ...]
    columns: tuple[str, ...]
    window: Window | None = dataclasses.field(default=None, kw_only=True)

    @classmethod
    def open(cls, raw: Path, pattern: str) -> RawTable:
        """The files under `raw` that match `pattern`.

        Raises:
          UserError: if there is none, it is of another kind, or it is empty.
        """
        try:
            files = tuple(sorted(raw.glob(pattern)))
        except (ValueError, IndexError, NotImplementedError):  # absolute, or empty
            raise UserError(f"spec: {pattern!r} is no file or glob relative to {raw}") from None
        if not files:
            raise UserError(f"{raw / pattern} is missing, expected a Parquet or CSV file")
        for file in files:
            if file.suffix not in (".csv", ".parquet"):
                raise UserError(f"{file} ends in {file.suffix!r}, expected .parquet or .csv")
            if not file.is_file():
                raise UserError(f"{file} is no file, expected a Parquet or CSV file")
        table = cls(files, _columns(files[0]))
        for file in files:
            columns = _columns(file)
            if file.suffix == ".csv":
                check_form(file, len(columns))
            table.require_rows(file)
        return table

    @property
    def name(self) -> str:
        """What an error calls the whole table."""
        return (
            str(self.files[0]) if len(self.files) == 1 else f"{self.files[0]} and {len(self.files) - 1} more"
        )

    def require_rows(self, file: Path) -> None:
        """Checks that a file has a row.

        Raises:
          UserError: if it has none.
        """
        if self._scan(file).select(pl.len()).collect(engine="streaming").item() == 0:
            raise UserError(f"{file} is empty, expected at least one row")

    def require(self, columns: Sequence[str]) -> None:
        """Checks that all files have these columns, of types that go together.

        Raises:
          UserError: naming the first that is missing, or of another type than in the first file.
        """
        types = self._scan(self.files[0]).collect_schema()
        for file in self.files:
            there = self._scan(file).collect_schema()
            for column in columns:
                if column not in there:
                    raise UserError(
                        f"{file}: column {column!r} is missing, expected one of {', '.join(there.names())}"
                    )
                if not _go_together(types[column], there[column]):
                    raise UserError(
                        f"{file}: column {column!r} is of type {there[column]}, expected "
                        f"{types[column]} as in {self.files[0]}"
                    )

    def scan(self, columns: Sequence[str]) -> pl.LazyFrame:
        """These columns, and `_row`, int64."""
        self.require(columns)
        wanted = list(dict.fromkeys(columns))
        frames = [self._scan(file).select(wanted) for file in self.files]
        frame, before = pl.concat(frames, how="vertical_relaxed"), 0
        if self.window is not None:
            before, types = self.window.before, dict(frame.collect_schema())
            frame = frames[self.window.file].slice(self.window.first, self.window.count).cast(types)
        return frame.with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64) + before)

    def pieces(self, rows: int) -> list[RawTable]:
        """Tables of at most `rows` rows, each within one file, that together scan as this one does."""
        windows, before = [], 0
        for index, file in enumerate(self.files):
            total = self._scan(file).select(pl.len()).collect(engine="streaming").item()
            windows += [
                Window(index, first, before + first, min(rows, total - first))
                for first in range(0, total, rows)
            ]
            before += total
        return [dataclasses.replace(self, window=window) for window in windows]

    def dtype(self, column: str, file: Path | None = None) -> pl.DataType:
        """Type of a column in a file, the first if not given."""
        return self._scan(file or self.files[0]).collect_schema()[column]

    def check(self, checks: Sequence[Check]) -> None:
        """Makes one pass over each file.

        Raises:
          UserError: naming file, column and row (counted from 1, the header aside) of the first bad row.
        """
        if not checks:
            return
        for file in self.files:
            frame = self._scan_numbered(file)
            row = pl.col(FILE_ROW)
            first = frame.select(
                row.filter(check.bad.fill_null(False)).min().alias(str(index))
                for index, check in enumerate(checks)
            ).collect(engine="streaming")
            found = [(first[str(index)][0], index) for index in range(len(checks)) if first[str(index)][0]]
            if found:
                position, index = min(found)
                column, expected = checks[index].column, checks[index].expected
                value = frame.filter(row == position).select(column).collect().to_series().to_list()[0]
                raise UserError(
                    f"{file}: column {column!r}, row {position} holds {value!r}, expected {expected}"
                )

    def _scan(self, file: Path) -> pl.LazyFrame:
        """The rows of one file."""
        return _scan_file(file)

    def _scan_numbered(self, file: Path) -> pl.LazyFrame:
        """The same, and `FILE_ROW`."""
        return self._scan(file).drop(FILE_ROW, strict=False).with_row_index(FILE_ROW, offset=1)


def _scan_file(path: Path) -> pl.LazyFrame:
    if path.suffix == ".csv":
        rows = pl.scan_csv(path, infer_schema=False)
    else:
        # A dictionary is how a file stores texts, and no other kind of value.
        texts = selectors.by_dtype(pl.Categorical, pl.Enum)
        rows = pl.scan_parquet(path).with_columns(texts.cast(pl.String))
    # Whoever writes a file quotes an empty text, or not, without a thought.
    return rows.with_columns(pl.when(selectors.string() != "").then(selectors.string()))


def _go_together(first: pl.DataType, other: pl.DataType) -> bool:
    """Whether rows of both types can stand in one column."""
    # What polars turns into none of the others, or only where no row says otherwise.
    apart = [(dtype.is_nested(), dtype == pl.Binary, dtype == pl.Duration) for dtype in (first, other)]
    if apart[0] != apart[1]:
        return False
    try:
        frames = [pl.LazyFrame(schema={"": dtype}) for dtype in (first, other)]
        pl.concat(frames, how="vertical_relaxed").collect_schema()
    except pl.exceptions.SchemaError:  # such as times in two zones
        return False
    return True


def _columns(path: Path) -> tuple[str, ...]:
    try:
        return tuple(_scan_file(path).collect_schema())
    except pl.exceptions.NoDataError:
        raise UserError(f"{path} is empty, expected a header and rows") from None
    except (pl.exceptions.ComputeError, OSError) as error:
        raise UserError(f"{path} cannot be read: it is damaged, or of another kind ({error})") from error


def number(column: str) -> pl.Expr:
    """A column as float64; null where it is no number, or one so large that its square is none."""
    value = pl.col(column).cast(pl.Float64, strict=False)
    return pl.when(value.abs() <= LARGEST).then(value)


def number_check(column: str) -> Check:
    """Values must be numbers or missing."""
    bad = pl.col(column).is_not_null() & number(column).is_null()
    return Check(column, bad, "a number of at most 1e30")


def require_single(table: RawTable, column: str) -> None:
    """Checks that a column has one value per row.

    Raises:
      UserError: if it is missing, or holds lists or records.
    """
    table.require([column])
    dtype = table.dtype(column)
    if dtype.is_nested():
        raise UserError(f"{table.name}: column {column!r} is of type {dtype}, expected one value per row")


def raw_checks(table: RawTable, column: str) -> list[Check]:
    """What is to have a vocabulary must be text in UTF-8 or fit the integers of 64 bits.

    Raises:
      UserError: as `require_single`, or if a column of bytes is no text.
    """
    require_single(table, column)
    return value_checks(table, column)


def value_checks(table: RawTable, column: str) -> list[Check]:
    """Checks that a column's values, or those of its lists, are raw values: texts, or numbers of 64 bits.

    Raises:
      UserError: if they are spans of time, or bytes that are no text.
    """
    dtype, value, element = table.dtype(column), pl.col(column), pl.element()
    listed = isinstance(dtype, pl.List)
    inner = dtype.inner if listed else dtype
    if inner == pl.Duration:
        raise UserError(f"{table.name}: column {column!r} is of type {dtype}, expected texts or numbers")
    if inner == pl.Binary():
        values = value.explode() if listed else value
        try:
            table.scan([column]).select(values.cast(pl.String).str.len_bytes().max()).collect(
                engine="streaming"
            )
        except pl.exceptions.ComputeError:  # which no lenient cast of bytes keeps from being raised
            raise UserError(f"{table.name}: column {column!r} holds bytes, expected text in UTF-8") from None
    if inner.is_integer():
        lost = value.list.eval(_lost(element)).list.any() if listed else _lost(value)
        expected = "integers" if listed else "an integer"
        return [Check(column, lost, f"{expected} below 2**63; larger ones may be given as text")]
    return []


def _lost(value: pl.Expr) -> pl.Expr:
    return value.is_not_null() & value.cast(pl.Int64, strict=False).is_null()


def key_check(column: str) -> Check:
    """A key may not be null."""
    return Check(column, pl.col(column).is_null(), "a value, for it is a key")


def key_checks(table: RawTable, column: str) -> list[Check]:
    """Checks that the values of a key column are there, and raw values.

    Raises:
      UserError: as `require_single`.
    """
    return [key_check(column), *raw_checks(table, column)]


def seconds(column: str, unit: str, dtype: pl.DataType) -> pl.Expr:
    """A column of times as int64 seconds since 1970; null where it is none."""
    value = pl.col(column)
    if unit != "datetime":
        return value.cast(pl.Int64, strict=False).floordiv(TIME_UNITS[unit])
    if dtype == pl.String():
        value = value.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    elif dtype == pl.Date():
        value = value.cast(pl.Datetime("us"))
    return value.dt.epoch("s")


def time_checks(table: RawTable, column: str, unit: str) -> list[Check]:
    """A time may not be missing, nor lie where only a wrong unit puts it.

    Raises:
      UserError: if the column's type cannot hold times of this unit.
    """
    table.require([column])
    dtype = table.dtype(column)
    for file in table.files:
        other = table.dtype(column, file)
        if other.is_temporal() != dtype.is_temporal():
            raise UserError(
                f"{file}: column {column!r} is of type {other}, expected {dtype} as in {table.files[0]}"
            )
    # Seconds since 1970 in 32-bit floats are minutes apart.
    right = isinstance(dtype, pl.Datetime | pl.Date) if unit == "datetime" else dtype.is_numeric()
    if dtype != pl.String() and (not right or dtype in (pl.Float32(), pl.Float16())):
        raise UserError(
            f"{table.name}: column {column!r} is of type {dtype}, which cannot hold times in unit {unit!r}"
        )
    time = seconds(column, unit, dtype)
    return [
        Check(column, time.is_null(), f"a time in unit {unit!r}"),
        Check(column, time < _EARLIEST, f"a time after 1970, so another time unit than {unit!r}"),
        Check(column, time >= _LATEST, f"a time before 2100, so another time unit than {unit!r}"),
    ]


def order_check(table: RawTable, column: str, unit: str) -> Check:
    """Times may not fall from one row to the next."""
    time = seconds(column, unit, table.dtype(column))
    return Check(column, time < time.shift(1), "a time not before the row above, for the log is said ordered")


def check_unique(table: RawTable, key: str) -> None:
    """A key may not repeat.

    Raises:
      UserError: naming the value and the row that repeats it.
    """
    table.check(key_checks(table, key))
    rows = table.scan([key])
    repeated = rows.group_by(key).agg(pl.len(), pl.col(ROW).sort().get(1, null_on_oob=True).alias("second"))
    first = repeated.filter(pl.col("len") > 1).sort("second").head(1).collect(engine="streaming")
    if first.height:
        raise UserError(
            f"{table.name}: column {key!r}, row {first['second'][0] + 1} repeats {first[key][0]!r}, "
            f"expected each key once"
        )
