"""Preparation as an Apache Beam pipeline, on any runner; its store is byte for byte that of `prepare`.

Two pipelines run one after the other. The first tallies the pieces of the log, from which its plan is made.
The second sends each row to the partition of its user, counts values per partition and adds the counts up,
and writes each partition as shards of its own. What becomes of a partition's rows is `preparation`'s own.

Workers read the raw files, and write shards beside the new store, under the paths that the program is given:
both lie in a file system that all of them mount.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pickle
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import apache_beam as beam
import grpc
import polars as pl
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import create_runner
from rich.console import Console

from suan_jax.data import preparation
from suan_jax.data.blocking import INDEX, Scale
from suan_jax.data.counting import Key, add_counts, build_encoder, sort_out, value_counts
from suan_jax.data.partitioning import (
    PARTITION,
    Plan,
    add_tallies,
    assign_partitions,
    number_rows,
    number_users,
    partition_files,
    plan,
    sink_partitions,
    tally,
)
from suan_jax.data.preparation_summary import Summary
from suan_jax.data.raw_log import USER, RawLog
from suan_jax.data.shard_writer import ShardWriter, Written
from suan_jax.data.vocabulary import Encoder
from suan_jax.data.working_folder import working_folder
from suan_jax.errors import UserError, nearest
from suan_jax.files import write_bytes
from suan_jax.notice import notice

ROWS_PER_PIECE = 2_000_000  # rows of a table that one worker reads

_UNREACHED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_MISTAKE = re.compile(
    r"^suan_jax\.errors\.UserError: (?P<sentence>.+?)(?: \[while running .*)?$", re.MULTILINE
)

Piece = tuple[str, pl.LazyFrame]
"""Which frame of a `RawLog`, and some of its rows."""
Rows = tuple[int, dict[str, pl.DataFrame]]
"""A partition, and what `number_rows` made of it, with its users' `_index` and `_user` as "owners"."""


def prepare_on_beam(
    raw: RawLog,
    out: str | Path,
    source: str,
    min_count: int = 2,
    options: Sequence[str] = ("--runner=DirectRunner",),
    console: Console | None = None,
) -> Summary:
    """Writes a raw log to a store, as `preparation.prepare` does, and prints what it holds.

    A worker holds one partition and all vocabularies in memory, and the program that starts the pipelines,
    at their end, the raw id of every user. A frame of which the source gives no pieces is read by one worker.

    Args:
      raw: the log, from a source.
      out: directory of the new store, which all workers reach under this name.
      source: name of the source, kept in the store.
      min_count: occurrences below which a value is out of vocabulary, where its table does not say.
      options: Beam's pipeline options, the runner among them, such as "--runner=FlinkRunner".
      console: where to print; None prints to standard output.

    Raises:
      UserError: if `out` exists, a split is empty, Beam has no such runner, an option is wrong, the runner
        cannot be reached, or a worker raises it.
    """
    out = preparation.check_out(out)
    parsed = _parsed(options)
    pieces = _pieces(raw)
    with working_folder(out.absolute(), "rows") as shared:
        notice(f"counting the rows of {len(pieces)} pieces of the log")
        with _pipeline(parsed) as pipeline:
            _tally(pipeline, pieces, raw, shared)
        tallied, events = _load(shared, "tally")[0], _load(shared, "events")[0]
        planned = plan(tallied, events, raw, source, preparation.ROWS_PER_PARTITION)
        job = _Job(_without_rows(raw), planned, source, min_count, shared)
        notice(f"writing the shards of {planned.partitions} partitions of users")
        with _pipeline(parsed) as pipeline:
            _write(pipeline, pieces, job)
        notice(f"joining the shards to {out}")
        encoders, scales = sort_out(raw, dict(_load(shared, "built")[0]))
        schema = preparation.sized(raw.schema, encoders)
        summary = Summary(schema, dict(raw.notes))
        parts = [part for _, part in sorted(dict(_load(shared, "parts")).items())]
        owners = pl.concat([owners for _, _, owners in parts], rechunk=True)
        with preparation.store_writer(out, source, schema, owners, encoders, scales, min_count) as writer:
            for written, found, _ in parts:
                writer.adopt(written)
                summary.merge(found)
    summary.print(console)
    return summary


@dataclasses.dataclass(frozen=True)
class _Job:
    """What every worker of the second pipeline is told."""

    raw: RawLog  # its frames have no rows
    plan: Plan
    source: str
    min_count: int
    shared: Path


def _parsed(options: Sequence[str]) -> PipelineOptions:
    said, parsers = io.StringIO(), []
    try:
        with contextlib.redirect_stderr(said):
            parsed = PipelineOptions(list(options))
            known = parsed.get_all_options(add_extra_args_fn=parsers.append)
    except SystemExit as end:  # argparse has printed its usage and, last, what is wrong
        if not end.code:
            raise
        raise UserError(f"Beam: {said.getvalue().strip().rpartition('error: ')[2]}") from None
    try:
        create_runner(known["runner"] or "DirectRunner")
    except (ValueError, ImportError, AttributeError, TypeError) as error:
        # Beam says this of a name without dots, with a list of its own.
        reason = "" if str(error).startswith("Unexpected pipeline runner") else f" ({error})"
        raise UserError(
            f"--runner={known['runner']} is no runner of Beam{reason}, expected "
            f"{', '.join(StandardOptions.KNOWN_RUNNER_NAMES)} or MODULE.CLASS"
        ) from error
    # No mistake yet: a job server may know more options than this machine.
    for word in parsers[0].parse_known_args(list(options))[1]:
        if word.startswith("-"):
            near = nearest(word.lstrip("-").partition("=")[0], known)
            notice(f"{word} is no option of Beam, the nearest is --{near}: only the runner may know it")
    return parsed


@contextlib.contextmanager
def _pipeline(options: PipelineOptions) -> Iterator[beam.Pipeline]:
    """A pipeline, which is run at the end of the block."""
    runner = options.view_as(StandardOptions).runner
    try:
        pipeline = beam.Pipeline(options=options)
    except ValueError as error:  # options that the runner lacks
        raise UserError(f"--runner={runner} does not take its options ({error})") from error
    try:
        with pipeline:
            yield pipeline
    except grpc.FutureTimeoutError as error:
        raise UserError(f"--runner={runner}: its job server does not answer") from error
    except Exception as error:
        if sentence := _mistake(error):
            raise UserError(sentence) from error
        if isinstance(error, grpc.Call) and error.code() in _UNREACHED:
            raise UserError(f"--runner={runner}: the connection failed ({error.details()})") from error
        raise  # a bug, here or in a worker


def _mistake(error: BaseException) -> str:
    """What the `UserError` says that `error` arose from, be it in a worker; empty if there is none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    # A runner brings the tracebacks of its workers along as text.
    found = _MISTAKE.search(str(error))
    return found["sentence"] if found else ""


def _frames(raw: RawLog) -> dict[str, pl.LazyFrame]:
    frames = {"impressions": raw.impressions, "events": raw.events, "users": raw.users}
    return {name: frame for name, frame in frames.items() if frame is not None}


def _pieces(raw: RawLog) -> list[Piece]:
    given = raw.pieces(ROWS_PER_PIECE)
    return [(name, piece) for name, frame in _frames(raw).items() for piece in given.get(name, [frame])]


def _without_rows(raw: RawLog) -> RawLog:
    empty = {name: pl.LazyFrame(schema=frame.collect_schema()) for name, frame in _frames(raw).items()}
    return dataclasses.replace(raw, **empty, pieces=dict)


def _tally(pipeline: beam.Pipeline, pieces: list[Piece], raw: RawLog, shared: Path) -> None:
    """Leaves the tallies of the impressions, and the numbers of events."""
    impressions, events = (
        pipeline | name >> beam.Create([piece for piece in pieces if piece[0] == name], reshuffle=True)
        for name in ("impressions", "events")
    )
    tallies = impressions | beam.Map(_tally_piece, raw=_without_rows(raw))
    tallies | beam.CombineGlobally(add_tallies).without_defaults() | "save tally" >> _save(shared, "tally")
    counts = events | beam.Map(_count_piece) | beam.CombineGlobally(sum)  # 0 where there are none
    counts | "save events" >> _save(shared, "events")


def _write(pipeline: beam.Pipeline, pieces: list[Piece], job: _Job) -> None:
    """Leaves the shards of all partitions, what is known of them, and the encoders and scales."""
    rows = (
        pipeline
        | beam.Create(pieces, reshuffle=True)
        | beam.FlatMap(_scatter, partitions=job.plan.partitions)
        | beam.GroupByKey()
        | beam.FlatMap(_gather, job=job)
    )
    built = (
        rows
        | beam.FlatMap(_count_values, job=job)
        | beam.CombinePerKey(add_counts)
        | beam.Map(_build, job=job)
    )
    users = rows | "users" >> beam.Map(_count_users)
    as_dict = beam.pvalue.AsDict
    parts = rows | beam.Map(_write_partition, as_dict(built), as_dict(users), job=job)
    parts | "save parts" >> _save(job.shared, "parts")
    built | beam.combiners.ToList() | "save built" >> _save(job.shared, "built")


def _tally_piece(piece: Piece, raw: RawLog) -> pl.DataFrame:
    return tally(raw, piece[1])


def _count_piece(piece: Piece) -> int:
    return piece[1].select(pl.len()).collect(engine="streaming").item()


def _scatter(piece: Piece, partitions: int) -> Iterator[tuple[int, tuple[str, bytes]]]:
    """The rows of a piece as Parquet files of one partition each."""
    name, frame = piece
    users = frame.select(USER).unique().collect(engine="streaming")
    keys = assign_partitions(users, partitions).select(USER, PARTITION)
    with tempfile.TemporaryDirectory() as folder:
        sunk = Path(folder) / name
        sink_partitions(frame.join(keys.lazy(), on=USER), sunk, ROWS_PER_PIECE // partitions)
        for file in partition_files(sunk):
            yield int(file.parent.name.partition("=")[2]), (name, file.read_bytes())


def _gather(group: tuple[int, Iterable[tuple[str, bytes]]], job: _Job) -> Iterator[Rows]:
    """The rows of a partition, numbered from 0 on; none if none of its users has an impression."""
    partition, chunks = group
    frames: dict[str, list[pl.DataFrame]] = {"impressions": [], "events": [], "users": []}
    for name, content in chunks:
        frames[name].append(pl.read_parquet(io.BytesIO(content)).drop(PARTITION))
    if not frames["impressions"]:
        return
    raw = job.raw
    for name, parts in frames.items():
        if parts:
            # The empty frame brings the order and the types of the columns.
            empty = getattr(raw, name).collect()
            whole = pl.concat([empty, *(part.select(empty.columns) for part in parts)])
            raw = dataclasses.replace(raw, **{name: whole.lazy()})
    users = number_users(raw.impressions, job.plan.partitions)
    rows = {name: frame.collect() for name, frame in number_rows(raw, users, job.plan).items()}
    yield partition, rows | {"owners": users.select(INDEX, USER)}


def _count_values(rows: Rows, job: _Job) -> Iterator[tuple[Key, pl.DataFrame]]:
    yield from value_counts(job.raw, _lazy(rows[1]))


def _build(counted: tuple[Key, pl.DataFrame], job: _Job) -> tuple[Key, Encoder | Scale]:
    key, counts = counted
    return key, build_encoder(job.raw, key, counts, job.min_count)


def _count_users(rows: Rows) -> tuple[int, int]:
    return rows[0], rows[1]["owners"].height


def _write_partition(
    numbered: Rows, built: Mapping[Key, Encoder | Scale], users: Mapping[int, int], job: _Job
) -> tuple[int, tuple[Written, Summary, pl.DataFrame]]:
    """A partition's shards, summary and owners, once it is known how many users lie before it."""
    partition, rows = numbered
    before = sum(count for other, count in users.items() if other < partition)
    encoders, scales = sort_out(job.raw, built)
    schema = preparation.sized(job.raw.schema, encoders)
    summary = Summary(schema)
    # A runner may repeat a bundle, even while it runs elsewhere: no two write the same file.
    writer = ShardWriter(job.shared, f"{partition}-{uuid.uuid4()}", schema, job.source)
    for block in preparation.partition_blocks(_lazy(rows), schema, encoders, scales):
        block = dataclasses.replace(block, user=block.user + before)
        summary.add(block)
        writer.write(block)
    writer.end_shard()
    owners = rows["owners"].with_columns(pl.col(INDEX) + before)
    return partition, (writer.written, summary, owners)


def _lazy(rows: Mapping[str, pl.DataFrame]) -> dict[str, pl.LazyFrame]:
    return {name: frame.lazy() for name, frame in rows.items()}


def _save(shared: Path, name: str) -> beam.ParDo:
    return beam.Map(_save_element, shared=shared, name=name)


def _save_element(element: object, shared: Path, name: str) -> None:
    # Under a name of its own: see `_write_partition`.
    write_bytes(shared / f"{uuid.uuid4()}.{name}", pickle.dumps(element))


def _load(shared: Path, name: str) -> list:
    """What `_save` saved, at least one element; what a runner computed twice is there twice."""
    return [pickle.loads(file.read_bytes()) for file in sorted(shared.glob(f"*.{name}"))]
