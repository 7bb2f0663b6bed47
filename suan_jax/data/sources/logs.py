"""`logs`: anyone's own click log, described by a spec."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from suan_jax.data.raw_log import LABEL, ORDER, TEST, TIME, USER, RawLog, Table
from suan_jax.data.sources.log_checks import action_feature, check_spec, check_tables, parse_label, table_of
from suan_jax.data.sources.log_spec import Bucketed, Column, LogSpec, MultiValued, Numeric
from suan_jax.data.sources.log_tables import LogTables, event_columns
from suan_jax.data.sources.negatives import sample_negatives
from suan_jax.data.sources.raw_table import ROW, number, seconds
from suan_jax.errors import UserError
from suan_jax.schema import GROUPS, Feature, Schema

_ITEM = "_item"
_COMPARE = {">=": "ge", "<=": "le", "==": "eq", "!=": "ne", ">": "gt", "<": "lt"}


def read(raw: Path, spec: LogSpec) -> RawLog:
    """The log that `spec` describes, in the folder `raw`.

    All checks are made here, in streaming passes over the files. Sampling negatives holds time and item of
    every click in memory, `drop_repeats` the keys of every impression, `test_share` their times; all else
    stays lazy.

    Raises:
      UserError: naming the file, the column and the first bad row, or the field of the spec.
    """
    check_spec(spec)
    tables = LogTables.open(raw, spec)
    check_tables(spec, tables)
    log, notes = _log(spec, tables)
    is_test = _is_test(log, spec)
    profile = _profile(log, spec, tables)
    schema = _schema(spec)
    dense = _numeric(spec)
    past = [*(column.name for column in spec.history), *([] if schema.action is None else [schema.action])]

    def impressions(log: pl.LazyFrame) -> pl.LazyFrame:
        rows = _with_items(log, (*spec.candidate, *spec.context), spec, tables)
        numeric = [column.name for column in spec.profile if isinstance(column, Numeric)]
        if numeric:
            rows = rows.join(profile.select(USER, *numeric), on=USER, how="left")
        own = [column.name for column in (*spec.candidate, *spec.context)]
        return rows.select(USER, TIME, ORDER, LABEL, is_test.alias(TEST), *own, *numeric)

    def events(history: pl.LazyFrame) -> pl.LazyFrame:
        rows = _with_items(history, spec.history, spec, tables)
        if schema.action is not None:
            rows = rows.with_columns(pl.col("_action").alias(schema.action))
        return rows.select(USER, TIME, ORDER, *past)

    def pieces(rows: int) -> dict[str, list[pl.LazyFrame]]:
        parts: dict[str, list[pl.LazyFrame]] = {}
        # A repeat, a negative and a user's first impression are known from the whole log alone.
        if not spec.drop_repeats:
            logs = [_log(spec, part)[0] for part in tables.pieces("impressions", rows)]
            if spec.negatives is None and not any(isinstance(column, Numeric) for column in spec.profile):
                parts["impressions"] = [impressions(log) for log in logs]
            if spec.events is None:
                parts["events"] = [events(_past(log, spec)) for log in logs]
        if spec.events is not None:
            own = tables.pieces("events", rows)
            parts["events"] = [events(_own_events(spec, part)) for part in own]
        return parts

    return RawLog(
        impressions=impressions(log if spec.negatives is None else _with_negatives(log, spec)),
        events=events(_past(log, spec) if spec.events is None else _own_events(spec, tables)),
        schema=schema,
        users=profile,
        tables=_vocabularies(spec, schema),
        log1p=tuple(column.name for column in dense if column.log1p),
        validation=spec.validation_share,
        notes=notes,
        pieces=pieces,
    )


def _past(log: pl.LazyFrame, spec: LogSpec) -> pl.LazyFrame:
    """Impressions as the events of later ones."""
    history = log.with_columns(pl.col(LABEL).cast(pl.String).alias("_action"))
    return history.filter(pl.col(LABEL) == 1) if spec.history_of == "clicked" else history


def _log(spec: LogSpec, tables: LogTables) -> tuple[pl.LazyFrame, dict[str, int]]:
    """The impressions with their keys, and the features that only they have, still as in the file."""
    features = [
        *tables.own(spec.candidate),
        *tables.own(spec.context),
        *(tables.own(spec.history) if spec.events is None else ()),
        *tables.own(spec.profile, by_user=True),
    ]
    names = list(dict.fromkeys(column.name for column in features))
    label = pl.lit(1)
    needed = [spec.user, spec.item, spec.time, *names]
    if spec.label is not None:
        column, comparison, bound = parse_label(spec.label)
        needed.append(column)
        label = number(column)
        if comparison is not None:
            label = getattr(label, _COMPARE[comparison])(bound)
    time = seconds(spec.time, spec.time_unit, tables.impressions.dtype(spec.time))
    log = tables.impressions.scan(needed).select(
        tables.user_key(spec.user).alias(USER),
        tables.item_key(spec.item).alias(_ITEM),
        time.alias(TIME),
        pl.col(ROW).alias(ORDER),
        label.cast(pl.UInt8).alias(LABEL),
        *names,
    )
    if not spec.drop_repeats:
        return log, {}
    first = log.group_by(USER, _ITEM, TIME).agg(pl.col(ORDER).min())
    counts = pl.collect_all([log.select(pl.len()), first.select(pl.len())], engine="streaming")
    kept = log.join(first.select(ORDER), on=ORDER, how="semi")
    return kept, {"repeats dropped": counts[0].item() - counts[1].item()}


def _own_events(spec: LogSpec, tables: LogTables) -> pl.LazyFrame:
    events, table = event_columns(spec), tables.events
    names = [column.name for column in tables.own(spec.history)]
    needed = [events.user, events.item, events.time, *names]
    action = pl.lit(None, pl.String)
    if events.action is not None:
        needed.append(events.action)
        action = pl.col(events.action)
    return table.scan(needed).select(
        tables.user_key(events.user).alias(USER),
        tables.item_key(events.item).alias(_ITEM),
        seconds(events.time, events.time_unit, table.dtype(events.time)).alias(TIME),
        pl.col(ROW).alias(ORDER),
        action.alias("_action"),
        *names,
    )


def _with_items(
    frame: pl.LazyFrame, columns: Sequence[Column], spec: LogSpec, tables: LogTables
) -> pl.LazyFrame:
    """Adds features of the item table, and brings all features to the form that `RawLog` asks for."""
    there = [column for column in columns if tables.has_item(column)]
    frame = frame.drop([column.name for column in there], strict=False)
    if there:
        key = tables.items_key
        names = [pl.col(column.name) for column in there]
        items = tables.items.scan([key, *(column.name for column in there)])
        items = items.select(tables.item_key(key).alias(_ITEM), *names)
        frame = frame.join(items, on=_ITEM, how="left")
    return frame.with_columns(
        pl.col(_ITEM).alias(spec.item) if column.name == spec.item else _value(column) for column in columns
    )


def _profile(log: pl.LazyFrame, spec: LogSpec, tables: LogTables) -> pl.LazyFrame:
    """Profile features of each user of the impressions; those of the impressions from the first by time."""
    own = [column.name for column in tables.own(spec.profile, by_user=True)]
    # By time, whatever the order of the file: a later row may tell what the test period brought.
    earliest = log.join(log.group_by(USER).agg(pl.col(TIME).min()), on=[USER, TIME], how="semi")
    first = earliest.group_by(USER).agg(pl.col(ORDER).min())
    users = log.select(USER, ORDER, *own).join(first.select(ORDER), on=ORDER, how="semi").drop(ORDER)
    there = [column.name for column in spec.profile if tables.has_user(column)]
    if there:
        rows = tables.users.scan([tables.users_key, *there])
        rows = rows.select(tables.user_key(tables.users_key).alias(USER), *map(pl.col, there))
        users = users.join(rows, on=USER, how="left")
    return users.select(
        USER,
        *(
            pl.col(USER).alias(spec.user) if column.name == spec.user else _value(column)
            for column in spec.profile
        ),
    )


def _value(column: Column) -> pl.Expr:
    if isinstance(column, Numeric | Bucketed):
        return number(column.name).alias(column.name)
    if isinstance(column, MultiValued):
        parts = pl.col(column.name)
        if column.separator is not None:
            parts = parts.str.split(column.separator)
        # An empty text is missing in a list, too.
        parts = parts.list.eval(pl.element().filter(pl.element().cast(pl.String) != ""))
        # A schema's feature of one value is no list.
        return parts if column.values > 1 else parts.list.drop_nulls().list.first().alias(column.name)
    return pl.col(column.name)


def _with_negatives(log: pl.LazyFrame, spec: LogSpec) -> pl.LazyFrame:
    """The impressions, and the draws for each click: its user, time and context, with another item."""
    clicks = log.filter(pl.col(LABEL) == 1).select(TIME, ORDER, _ITEM).sort(TIME, ORDER)
    clicks = clicks.collect(engine="streaming")
    distinct = pl.DataFrame({_ITEM: clicks[_ITEM].unique().sort()}).with_row_index("code")
    codes = clicks.join(distinct, on=_ITEM, how="left", maintain_order="left")["code"]
    drawn = sample_negatives(clicks[TIME].to_numpy(), codes.cast(pl.Int64).to_numpy(), spec.negatives)
    row, slot = np.nonzero(drawn >= 0)
    draws = pl.LazyFrame(
        {
            ORDER: clicks[ORDER].gather(row),
            _ITEM: distinct[_ITEM].gather(drawn[row, slot]),
            "slot": slot.astype(np.int64) + 1,
        }
    )
    step = spec.negatives.per_positive + 1
    negatives = log.drop(_ITEM).join(draws, on=ORDER)
    negatives = negatives.with_columns(
        pl.lit(0, pl.UInt8).alias(LABEL), (pl.col(ORDER) * step + pl.col("slot")).alias(ORDER)
    )
    columns = log.collect_schema().names()
    return pl.concat([log.with_columns(pl.col(ORDER) * step), negatives.select(columns)])


def _is_test(log: pl.LazyFrame, spec: LogSpec) -> pl.Expr:
    if spec.test_from is not None:
        try:
            moment = datetime.datetime.fromisoformat(spec.test_from)
        except ValueError:
            raise UserError(
                f"spec: test_from is {spec.test_from!r}, expected a date such as 2022-05-01"
            ) from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        return pl.col(TIME) >= int(moment.timestamp())
    times = log.select(TIME).collect(engine="streaming")[TIME].to_numpy()
    start = len(times) - round(spec.test_share * len(times))
    return pl.col(TIME) >= int(np.partition(times, start)[start]) if start < len(times) else pl.lit(False)


def _schema(spec: LogSpec) -> Schema:
    action = action_feature(spec)
    groups = {
        group: tuple(
            Feature(column.name, column.table or column.name, getattr(column, "values", 1))
            for column in spec.group(group)
            if not isinstance(column, Numeric)
        )
        for group in GROUPS
    }
    if action is not None:
        groups["history"] += (Feature(action, action),)
    numeric = tuple(column.name for column in _numeric(spec))
    return Schema(tables={}, **groups, dense=numeric, item=spec.item, category=spec.category, action=action)


def _numeric(spec: LogSpec) -> list[Numeric]:
    return [column for group in GROUPS for column in spec.group(group) if isinstance(column, Numeric)]


def _vocabularies(spec: LogSpec, schema: Schema) -> dict[str, Table]:
    tables = {} if schema.action is None else {schema.action: Table(min_count=1)}
    for group in GROUPS:
        for column in spec.group(group):
            if not isinstance(column, Numeric):
                table = table_of(column)
                if table.min_count is None:
                    table = dataclasses.replace(table, min_count=spec.min_count)
                tables[column.table or column.name] = table
    return tables
