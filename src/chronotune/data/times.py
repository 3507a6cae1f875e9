"""Time columns: text becomes timestamps when there is exactly one way to read it."""

from __future__ import annotations

from itertools import product

import polars as pl
from polars.datatypes import DataTypeClass

from chronotune.data.findings import at_rows, positions
from chronotune.data.table import stripped, without
from chronotune.errors import Fault, InputError

ISO = "Write times as 2018-01-31 00:15 (ISO 8601)"
SAMPLE = 200
"""Values that a format is tried on before it is tried on the whole column."""

_CLOCKS = ("", " %H:%M", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p")
_ZONED = (" %H:%M%z", " %H:%M:%S%.f%z")
_DAYS = ("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%Y")
FORMATS = (
    *map("".join, product(("%Y-%m-%d", "%Y/%m/%d"), (*_CLOCKS, *_ZONED))),
    *map("".join, product(_DAYS, _CLOCKS)),
)


def parse_times(column: pl.Series, where: str) -> pl.Series:
    """The column as timestamps without a time zone; with one it is converted to UTC.

    Empty cells become null. Formats: ISO 8601 and the common orders of day, month and year.

    Args:
        column: Text, dates or timestamps.
        where: The file, for the error.

    Raises:
        InputError: A value has no known format, or the column can be read in two ways.
    """
    if column.dtype == pl.String:
        return _parse_text(column, where)
    if column.dtype == pl.Date:
        return column.cast(pl.Datetime("us"))
    if isinstance(column.dtype, pl.Datetime):
        return _naive_utc(column)
    raise InputError([Fault(where, column.name, f"must hold times, but it holds {_kind(column.dtype)}", ISO)])


def _parse_text(column: pl.Series, where: str) -> pl.Series:
    text = _normalised(column)
    readings = _readings(text)
    full = [reading for reading in readings if reading.null_count() == text.null_count()]
    if not full and text.null_count() < len(text):
        raise InputError([_unreadable(text, readings, where)])
    for other in full[1:]:
        if not other.equals(full[0]):
            raise InputError([_ambiguous(column, full[0], other, where)])
    return full[0] if full else text.cast(pl.Datetime("us"), strict=False)


def _normalised(column: pl.Series) -> pl.Series:
    """Blank becomes null, `T` a space, `Z` and short offsets a full offset."""
    text = stripped(column).str.replace(r"^(\d{4}-\d{2}-\d{2})T", "$1 ")
    text = text.str.replace(r"\s*(?:Z|UTC)$", "+00:00")
    return text.str.replace(r"(:\d{2}(?:\.\d+)?)\s*([+-]\d{2})$", "$1$2:00")


def _readings(text: pl.Series) -> list[pl.Series]:
    """The column under each format that fits some value; what does not fit is null."""
    sample = text.drop_nulls().head(SAMPLE)
    hopeful = [pattern for pattern in FORMATS if _read(sample, pattern).count()]
    return [_read(text, pattern) for pattern in hopeful]


def _read(text: pl.Series, pattern: str) -> pl.Series:
    times = _naive_utc(text.str.strptime(pl.Datetime("us"), pattern, strict=False))
    # a year of two digits is taken for the first century
    return without(times, ~times.dt.year().is_between(1700, 2200))


def _naive_utc(times: pl.Series) -> pl.Series:
    if getattr(times.dtype, "time_zone", None) is not None:
        times = times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return times.cast(pl.Datetime("us"))


def _unreadable(text: pl.Series, readings: list[pl.Series], where: str) -> Fault:
    best = max(readings, key=pl.Series.count, default=pl.Series([None] * len(text)))
    bad = best.is_null() & text.is_not_null()
    example = text.filter(bad)[0]
    rule = f"must be a time of a known format, but {example!r} is not"
    if best.count():
        rule = f"must be times of one format, but {example!r} is not like {text.filter(best.is_not_null())[0]!r}"
    return Fault(at_rows(where, positions(bad)), text.name, rule, ISO)


def _ambiguous(column: pl.Series, one: pl.Series, other: pl.Series, where: str) -> Fault:
    example = column.filter(one != other)[0]
    rule = f"must have one reading, but {example!r} may be day/month or month/day, and no other row decides"
    return Fault(where, column.name, rule, ISO)


def _kind(dtype: pl.DataType | DataTypeClass) -> str:
    return "numbers" if dtype.is_numeric() else f"values of type {dtype}"
