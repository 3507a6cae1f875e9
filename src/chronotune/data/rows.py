"""A frame that remembers which file row each of its rows was: what checks and the time axis are computed on."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from chronotune.config.recipe import DataConfig
from chronotune.data.findings import Finding, Level

ROW, SERIES, TIME = "__row", "__series", "__time"
"""Columns that `framed` adds: file row from 1, series id (empty without an id column), microseconds since 1970."""


def framed(frame: pl.DataFrame, data: DataConfig) -> pl.DataFrame:
    """The frame, rows in file order, with the columns ROW, SERIES and TIME in front."""
    series = pl.col(data.id) if data.id else pl.lit("")
    return frame.select(
        pl.int_range(1, pl.len() + 1).alias(ROW),
        series.alias(SERIES),
        pl.col(data.time).dt.epoch("us").alias(TIME),
        pl.all(),
    )


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows that have time and series, series after series by time, only the first of those at the same time."""
    usable = rows.drop_nulls([TIME, SERIES])
    return usable.unique([SERIES, TIME], keep="first", maintain_order=True).sort(SERIES, TIME, maintain_order=True)


def found(level: Level, column: str, rule: str, bad: pl.DataFrame, remedy: str) -> Finding:
    """A finding about `bad`, a part of a framed table: its file rows, and its series in a panel."""
    names = bad[SERIES].drop_nulls().unique(maintain_order=True)
    return Finding(level, column, rule, remedy, tuple(bad[ROW].sort()), tuple(name for name in names if name))


def counted(bad: pl.DataFrame) -> str:
    """How many rows, with their verb: `1 row is`, `3 rows are`."""
    return "1 row is" if bad.height == 1 else f"{bad.height:,} rows are"


def duration(step: timedelta) -> str:
    """A step in the largest unit that divides it: `15 minutes`, `1 hour`, `7 days`."""
    for unit in ("days", "hours", "minutes", "seconds"):
        count, rest = divmod(step, timedelta(**{unit: 1}))
        if count and not rest:
            return f"{count} {unit if count > 1 else unit[:-1]}"
    return str(step)
