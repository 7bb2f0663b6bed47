"""The job behind `launch/prepare.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from rich.console import Console

from suan_jax.config import SyntheticConfig
from suan_jax.data.preparation import check_out, prepare
from suan_jax.data.preparation_summary import Summary
from suan_jax.data.sources import SOURCES
from suan_jax.data.sources.log_spec import load_spec
from suan_jax.data.store_writer import StoreWriter
from suan_jax.errors import UserError
from suan_jax.paths import check_local
from suan_jax.progress import progress

SYNTHETIC = "synthetic"


def prepare_store(
    source: str,
    raw: str,
    out: str,
    spec: str = "",
    min_count: int = 2,
    console: Console | None = None,
    runner: str = "",
    beam_options: Sequence[str] = (),
) -> Summary:
    """Writes a store and prints what it holds.

    Args:
      source: a name of `SOURCES`, or "synthetic", whose blocks are generated and copied.
      raw: folder of the raw files; none for "synthetic".
      out: directory of the new store.
      spec: the spec file of the source "logs"; none for the others.
      min_count: occurrences in the train period below which a value is out of vocabulary.
      console: where to print; None prints to standard output.
      runner: Apache Beam's runner, on whose workers the log is prepared; empty prepares it here.
      beam_options: Beam's other options, such as "--flink_master=localhost:8081".

    Raises:
      UserError: if something about these arguments, or about the files, is wrong, or Beam is not installed.
    """
    if source == "logs" and not spec:
        raise UserError("--spec is missing, expected the Python file that describes the log")
    if source != "logs" and spec:
        raise UserError(f"--spec={spec} is read by --source=logs alone, got --source={source}")
    if min_count < 1:
        raise UserError(f"--min_count={min_count} is below 1, the least that keeps every value")
    check_local(out)
    check_out(out)
    if source == SYNTHETIC:
        if raw:
            raise UserError(f"--raw={raw} is not read by --source={SYNTHETIC}, which has no raw files")
        if runner:
            raise UserError(
                f"--runner={runner} is not used by --source={SYNTHETIC}, whose blocks are generated"
            )
        return _copy_synthetic(out, console)
    if source not in SOURCES:
        raise UserError(f"--source={source} is unknown, expected one of {', '.join((*SOURCES, SYNTHETIC))}")
    if not raw:
        raise UserError(f"--raw is missing, expected the folder with the raw files of {source}")
    check_local(raw, "a folder")
    folder = Path(raw)
    if not folder.is_dir():
        raise UserError(f"--raw={raw} is no folder, expected the one with the raw files of {source}")
    if beam_options and not runner:
        raise UserError(f"{beam_options[0]!r} is an option of Beam, expected --runner=NAME before the --")
    if runner:
        try:
            from suan_jax.data.beam_preparation import prepare_on_beam
        except ModuleNotFoundError as error:
            raise UserError(f"{error.name} is not installed; pip install -e '.[beam]' brings it") from error
        folder = folder.absolute()  # workers start elsewhere
    described = [load_spec(spec)] if spec else []
    try:
        log = SOURCES[source](folder, *described)
        if runner:
            return prepare_on_beam(
                log, out, source, min_count, [f"--runner={runner}", *beam_options], console
            )
        return prepare(log, out, source, min_count, console)
    except pl.exceptions.ComputeError as error:
        # A damaged page is met only when it is read, wherever that happens first; what the system refuses,
        # such as a full disk, is no damage.
        if not str(error).startswith("parquet:") or "(os error " in str(error):
            error.filename = out
            raise
        raise UserError(f"a Parquet file of --raw={raw} is damaged ({error})") from error


def _copy_synthetic(out: str, console: Console | None) -> Summary:
    from suan_jax.data.synthetic import SyntheticLog  # its tables take a moment, which no raw log needs

    log = SyntheticLog(SyntheticConfig())
    summary = Summary(log.schema)
    with (
        StoreWriter(out, log.schema, source=SYNTHETIC, extra={"form": log.form}) as writer,
        progress(log.num_blocks, "generating blocks") as done,
    ):
        for index in range(log.num_blocks):
            block = log.block(index)
            summary.add(block)
            writer.write(block)
            done.advance()
    summary.print(console)
    return summary
