"""metrics.jsonl: one JSON object per logged step, each step once whatever kills and resumes a run."""

from __future__ import annotations

import importlib
import json
import math
import os
import time
from pathlib import Path
from typing import Any

from suan_jax.errors import UserError
from suan_jax.files import write_bytes
from suan_jax.paths import is_remote
from suan_jax.processes import by_first, is_first

_PAUSE = 30.0  # seconds between uploads of an object that grows; a store takes one a second


def plain(value: Any) -> Any:
    """`value` as JSON has it: NumPy and JAX scalars as numbers, NaN and infinities as None, in lists too."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that a kill cut short is left out.

    Raises:
      UserError: if another line is not a JSON object with a step.
    """
    rows = []
    # What follows the last line break is empty, or was cut short.
    for number, line in enumerate(path.read_bytes().decode(errors="replace").split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
            row["step"] + 0
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} line {number} is {line[:80]!r}, expected an object with a step"
            ) from error
        rows.append(row)
    return rows


class _Object:
    """A file at gs://, which cannot be appended to: it is replaced, now and then, and by `sync`."""

    def __init__(self, path: Path, content: str) -> None:
        self._path, self._content, self._written = path, content, -1
        self.sync()

    def write(self, text: str) -> None:
        self._content += text

    def flush(self) -> None:
        if time.monotonic() - self._uploaded >= _PAUSE:
            self.sync()

    def sync(self) -> None:
        if len(self._content) != self._written:
            write_bytes(self._path, self._content.encode())
        self._written, self._uploaded = len(self._content), time.monotonic()

    def close(self) -> None:
        self.sync()


class MetricWriter:
    """Appends rows to metrics.jsonl in a work directory, and to TensorBoard if tensorboardX is installed.

    A step may have one training row and one evaluation row per split; a row that stands already is not
    written again, so repeating the end of a finished run changes nothing. Write the training row of
    a step, and call `sync`, before its checkpoint: a row that is lost between the two is not made up for.
    At gs:// rows are seen half a minute late, and there is no TensorBoard.

    Of several processes, the first one writes, and all know the rows.
    """

    def __init__(self, workdir: Path, resume_step: int | None = None) -> None:
        """Opens the file of `workdir`, which must exist.

        Args:
          workdir: the run's work directory.
          resume_step: step that the run goes on from; rows of later steps are dropped, as the run will
            write them again. None starts the file afresh.

        Raises:
          UserError: if the file that stands is not one of metrics.
        """
        self._path = workdir / "metrics.jsonl"
        rows = by_first(lambda: self._rows_until(resume_step))
        self._rows = {(row["step"], row.get("split")): row for row in rows}
        self._file = self._board = None
        if is_first():
            self._open(rows, resume_step)

    def _rows_until(self, step: int | None) -> list[dict[str, Any]]:
        """The rows that stand in the file, up to a step."""
        resumed = step is not None and self._path.exists()
        return [row for row in read_metrics(self._path) if row["step"] <= step] if resumed else []

    def _open(self, rows: list[dict[str, Any]], resume_step: int | None) -> None:
        lines = [json.dumps(row) + "\n" for row in rows]
        if is_remote(self._path):
            self._file = _Object(self._path, "".join(lines))
            return
        temporary = self._path.with_name("metrics.jsonl.tmp")
        with temporary.open("w") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        self._file = self._path.open("a")
        self._board = _tensorboard(self._path.parent / "tensorboard", resume_step)

    def write(self, step: int, **values: Any) -> None:
        """Appends a row; `split`, if among the values, makes it an evaluation row.

        Args:
          step: the step.
          **values: numbers, strings, and lists of them; what is not finite is written as null.

        Raises:
          OSError: if the disk is full, naming the file.
        """
        key = (int(step), values.get("split"))
        if key in self._rows:
            return
        row = {"step": key[0], **{name: plain(value) for name, value in values.items()}}
        self._rows[key] = row
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(row, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            error.filename = str(self._path)
            raise
        if self._board is not None:
            prefix = values.get("split", "train")
            for name, value in row.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._board.add_scalar(f"{prefix}/{name}", value, key[0])

    def sync(self) -> None:
        """Returns when every row is where a kill leaves it.

        Raises:
          UserError: if an object store does not take them.
        """
        if isinstance(self._file, _Object):
            self._file.sync()

    def has(self, step: int, split: str | None = None) -> bool:
        """Whether the row of a step stands: of the evaluation of a split, or else of training."""
        return (step, split) in self._rows

    def rows(self) -> list[dict[str, Any]]:
        """All rows that stand, in order."""
        return list(self._rows.values())

    def close(self) -> None:
        """Closes the files."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def _tensorboard(directory: Path, resume_step: int | None) -> Any:
    """A SummaryWriter, or None without the package."""
    try:
        package = importlib.import_module("tensorboardX")
    except ImportError:
        return None
    # TensorBoard forgets what stands from here on: the run writes it again.
    first = 0 if resume_step is None else resume_step + 1
    return package.SummaryWriter(str(directory), purge_step=first)
