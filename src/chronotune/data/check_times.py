"""The part of the check that looks at times: present, ascending, once each, equal steps, no gaps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import polars as pl

from chronotune.config.recipe import DataConfig
from chronotune.data.axis import commonest_step, phase
from chronotune.data.findings import Finding
from chronotune.data.rows import SERIES, TIME, counted, duration, found, in_order

MAX_FILL = 1.0
"""Rows that `fill_gaps` may insert, as a share of the rows there are."""
MONTH = timedelta(days=28)
DOUBLED = "Keep one row for each time; if a clock change doubled an hour, write times in UTC or with their offset"
SEVERAL = "; if these are several series, name the column that tells them apart in data.id"


def time_findings(rows: pl.DataFrame, data: DataConfig, fill: str = "set data.fill_gaps") -> Iterator[Finding]:
    """All findings about the times and ids of a framed table, rows in file order; `fill` is how gaps are filled."""
    yield from _empty(rows, TIME, data.time, "Give every row its time, or delete it")
    if data.id:
        yield from _empty(rows, SERIES, data.id, "Give every row its series, or delete it")
    yield from _disorder(rows, data)
    yield from _duplicates(rows, data)
    ordered = in_order(rows)
    if step := commonest_step(ordered):
        off_grid = tuple(_off_grid(ordered, step, data))
        yield from off_grid or _gaps(ordered, step, data, fill)
    else:
        yield Finding("error", data.time, "a series must have two different times, but none has", "Give more data")


def _empty(rows: pl.DataFrame, column: str, name: str, remedy: str) -> Iterator[Finding]:
    if (bad := rows.filter(pl.col(column).is_null())).height:
        yield found("error", name, f"must be filled in every row, but {counted(bad)} empty", bad, remedy)


def _disorder(rows: pl.DataFrame, data: DataConfig) -> Iterator[Finding]:
    bad = rows.drop_nulls([TIME, SERIES]).filter(pl.col(TIME).diff().over(SERIES) < 0)
    if bad.height:
        rule = f"must ascend within a series, but {counted(bad)} earlier than the row before"
        yield found("error", data.time, rule, bad, "Sort the file by time, if its labels are right")


def _duplicates(rows: pl.DataFrame, data: DataConfig) -> Iterator[Finding]:
    again = pl.int_range(pl.len()).over(SERIES, TIME) > 0
    if (bad := rows.drop_nulls([TIME, SERIES]).filter(again)).height:
        rule = f"must not repeat within a series, but {counted(bad)} a repetition, the first at {bad[data.time][0]}"
        yield found("error", data.time, rule, bad, DOUBLED if data.id else DOUBLED + SEVERAL)


def _off_grid(ordered: pl.DataFrame, step: int, data: DataConfig) -> Iterator[Finding]:
    bad = ordered.filter(pl.col(TIME) % step != phase(ordered, step))
    if bad.height:
        length = timedelta(microseconds=step)
        rule = f"must advance in equal steps, here {duration(length)}, but {counted(bad)} between them"
        remedy = "Months are no equal steps: use days or weeks" if length >= MONTH else "Resample to equal steps"
        yield found("error", data.time, rule, bad, remedy)


def _gaps(ordered: pl.DataFrame, step: int, data: DataConfig, fill: str) -> Iterator[Finding]:
    """Rows behind a gap: an error unless gaps are filled, and even then when most rows would be invented."""
    skipped = pl.col(TIME).diff().over(SERIES) // step - 1
    bad = ordered.with_columns(skipped.alias("__skipped")).filter(pl.col("__skipped") > 0)
    missing, present = int(bad["__skipped"].sum()), ordered.height
    if not missing:
        return
    steps = "1 step is" if missing == 1 else f"{missing:,} steps are"
    places = "this row" if bad.height == 1 else f"{bad.height:,} rows"
    rule = f"must advance by {duration(timedelta(microseconds=step))}, but {steps} missing before {places}"
    if not data.fill_gaps:
        remedy = f"Add them, or {fill} to insert rows of missing values"
        yield found("error", data.time, rule, bad, remedy)
    elif missing > MAX_FILL * present:
        remedy = f"data.fill_gaps inserts at most as many rows as there are, {present:,}: check the times"
        yield found("error", data.time, rule, bad, remedy)
    else:
        yield found("warning", data.time, rule, bad, "Rows of missing values are inserted")
