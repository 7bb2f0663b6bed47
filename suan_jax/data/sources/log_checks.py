"""What can be wrong with a log's spec, and with the tables that it names."""

from __future__ import annotations

import re

import polars as pl

from suan_jax.data.raw_log import Table
from suan_jax.data.sources.log_spec import (
    ACTION,
    Bucketed,
    Categorical,
    Column,
    Hashed,
    LogSpec,
    MultiValued,
    Numeric,
)
from suan_jax.data.sources.log_spec_values import check_values
from suan_jax.data.sources.log_tables import LogTables, event_columns
from suan_jax.data.sources.raw_table import (
    Check,
    RawTable,
    check_unique,
    key_checks,
    number,
    number_check,
    order_check,
    raw_checks,
    require_single,
    time_checks,
    value_checks,
)
from suan_jax.errors import UserError
from suan_jax.schema import GROUPS

_COMPARISON = re.compile(r"\s*(\w+)\s*(>=|<=|==|!=|>|<)\s*([-+]?\d+(?:\.\d+)?)\s*")


def parse_label(label: str) -> tuple[str, str | None, float]:
    """Splits a label into column, comparison and number; a bare column has no comparison.

    Raises:
      UserError: if it is neither.
    """
    match = _COMPARISON.fullmatch(label)
    if match:
        return match[1], match[2], float(match[3])
    if re.fullmatch(r"\w+", label):
        return label, None, 0.0
    raise UserError(f'spec: label {label!r} is neither a column nor a comparison such as "rating >= 4"')


def action_feature(spec: LogSpec) -> str | None:
    """The history feature that names the action, made without being declared; None without one."""
    if spec.events is not None:
        return spec.events.action
    return ACTION if spec.history_of == "all" and spec.label is not None else None


def table_of(column: Column) -> Table:
    """How the values of a categorical column become ids."""
    if isinstance(column, Hashed):
        return Table(hash_ids=column.ids)
    if isinstance(column, Bucketed):
        return Table(buckets=column.buckets)
    return Table(min_count=column.min_count)


def check_spec(spec: LogSpec) -> None:
    """Checks what needs no file.

    Raises:
      UserError: naming the field, its value and what was expected.
    """
    check_values(spec)
    outcome = None if spec.label is None else parse_label(spec.label)[0]
    for group in GROUPS:
        names = [column.name for column in spec.group(group)]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"spec: {group} declares the feature {name!r} twice, expected it once")
            if name == outcome:
                raise UserError(
                    f"spec: {group} declares {name!r}, the outcome that the label reads; an input must be "
                    f"known before the impression"
                )
        if group in ("candidate", "history") and spec.item not in names:
            raise UserError(f"spec: {group} lacks the item column {spec.item!r}, expected it as a feature")
        if group in ("candidate", "history") and spec.category not in (None, *names):
            raise UserError(f"spec: {group} lacks the category column {spec.category!r}")
    candidate = {column.name for column in spec.candidate}
    for column in spec.context:
        if column.name in candidate:
            raise UserError(f"spec: {column.name!r} is declared twice, in candidate and in context")
    for column in spec.history:
        if isinstance(column, Numeric):
            raise UserError(f"spec: history declares {column.name!r} as Numeric, expected Bucketed there")
    action = action_feature(spec)
    if action in [column.name for column in spec.history]:
        raise UserError(f"spec: history declares {action!r} twice, for the action is a feature by itself")
    _check_choices(spec)
    _check_vocabularies(spec)


def _check_choices(spec: LogSpec) -> None:
    if (spec.test_from is None) == (spec.test_share is None):
        raise UserError("spec: expected one of test_from and test_share, and not both")
    if spec.label is None and spec.negatives is None:
        raise UserError("spec: label is None, so every row is a click, and negatives are None too")


def _check_vocabularies(spec: LogSpec) -> None:
    tables: dict[str, Table] = {}
    for group in GROUPS:
        for column in spec.group(group):
            if isinstance(column, Numeric):
                continue
            name, table = column.table or column.name, table_of(column)
            if tables.setdefault(name, table) != table:
                raise UserError(f"spec: {group} feature {column.name!r} reads table {name!r} in another way")


def check_tables(spec: LogSpec, tables: LogTables) -> None:
    """Checks every column that the spec names, and every row, in the files.

    Raises:
      UserError: naming file, column and the first bad row.
    """
    main = tables.impressions
    checks = [
        *key_checks(main, spec.user),
        *key_checks(main, spec.item),
        *time_checks(main, spec.time, spec.time_unit),
    ]
    if spec.ordered:
        checks.append(order_check(main, spec.time, spec.time_unit))
    if spec.label is not None:
        checks.append(_label_check(spec, main))
    own = [*tables.own(spec.candidate), *tables.own(spec.context), *tables.own(spec.profile, by_user=True)]
    if spec.negatives is not None and tables.own(spec.candidate):
        raise UserError(
            f"spec: candidate feature {tables.own(spec.candidate)[0].name!r} is a column of {main.name}, but "
            f"sampled negatives need it of the item table"
        )
    past = tables.own(spec.history)
    if spec.events is None:
        own.extend(past)
    else:
        events = event_columns(spec)
        if events.action is not None:
            past.append(Categorical(name=events.action))
        keys = [*key_checks(tables.events, events.user), *key_checks(tables.events, events.item)]
        times = time_checks(tables.events, events.time, events.time_unit)
        tables.events.check([*keys, *times, *_column_checks(tables.events, past)])
    main.check([*checks, *_column_checks(main, own)])
    items = [column for column in (*spec.candidate, *spec.context, *spec.history) if tables.has_item(column)]
    if tables.items is not None:
        check_unique(tables.items, tables.items_key)
        tables.items.check(_column_checks(tables.items, items))
    if tables.users is not None:
        check_unique(tables.users, tables.users_key)
        users = [column for column in spec.profile if tables.has_user(column)]
        tables.users.check(_column_checks(tables.users, users))


def _label_check(spec: LogSpec, table: RawTable) -> Check:
    column, comparison, _ = parse_label(spec.label)
    require_single(table, column)
    if comparison is not None:
        return Check(column, number(column).is_null(), "a number, for the label compares it")
    return Check(column, ~number(column).is_in([0.0, 1.0]).fill_null(False), "a label, 0 or 1")


def _column_checks(table: RawTable, columns: list[Column]) -> list[Check]:
    checks = []
    table.require([column.name for column in columns])
    for column in columns:
        dtype = table.dtype(column.name)
        if isinstance(column, MultiValued):
            right, expected = (
                (isinstance(dtype, pl.List) and not dtype.inner.is_nested(), "a list column")
                if column.separator is None
                else (dtype == pl.String(), f"texts separated by {column.separator!r}")
            )
            if not right:
                raise UserError(
                    f"{table.name}: column {column.name!r} is of type {dtype}, expected {expected}"
                )
            checks.extend(value_checks(table, column.name))
        elif isinstance(column, Numeric | Bucketed):
            require_single(table, column.name)
            checks.append(number_check(column.name))
        else:
            checks.extend(raw_checks(table, column.name))
    return checks
