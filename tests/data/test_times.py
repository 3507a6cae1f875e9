"""Time columns have one reading, or none."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from chronotune.data.times import parse_times
from chronotune.errors import InputError


def read(*values: object) -> list[datetime | None]:
    """The column of these values, parsed."""
    return parse_times(pl.Series("time", list(values), strict=False), "plant.csv").to_list()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-31", datetime(2024, 1, 31)),
        ("2024-01-31 13:05", datetime(2024, 1, 31, 13, 5)),
        ("2024-01-31T13:05:06", datetime(2024, 1, 31, 13, 5, 6)),
        ("2024-01-31 13:05:06.250", datetime(2024, 1, 31, 13, 5, 6, 250_000)),
        ("2024-01-31T13:05:06Z", datetime(2024, 1, 31, 13, 5, 6)),
        ("2024-01-31 13:05 UTC", datetime(2024, 1, 31, 13, 5)),
        ("2024-01-31T13:05:06+01:00", datetime(2024, 1, 31, 12, 5, 6)),
        ("2024-01-31 13:05:06-03", datetime(2024, 1, 31, 16, 5, 6)),
        ("2024-01-31 13:05+0530", datetime(2024, 1, 31, 7, 35)),
        ("2024/01/31 13:05", datetime(2024, 1, 31, 13, 5)),
        ("31/01/2024 13:05", datetime(2024, 1, 31, 13, 5)),
        ("01/31/2024 1:05 PM", datetime(2024, 1, 31, 13, 5)),
        ("31.1.2024 13:05:06", datetime(2024, 1, 31, 13, 5, 6)),
        ("31-01-2024", datetime(2024, 1, 31)),
        (" 2024-01-31 ", datetime(2024, 1, 31)),
    ],
)
def test_common_formats(text: str, expected: datetime) -> None:
    """ISO 8601 and the common orders are read; a zone becomes UTC."""
    assert read(text) == [expected]


def test_one_row_that_decides_is_enough() -> None:
    """Day and month are told apart by any row of the column; equal ones need no telling."""
    assert read("01/02/2024", "31/12/2024") == [datetime(2024, 2, 1), datetime(2024, 12, 31)]
    assert read("01/02/2024", "12/31/2024") == [datetime(2024, 1, 2), datetime(2024, 12, 31)]
    assert read("01/01/2024", "02/02/2024") == [datetime(2024, 1, 1), datetime(2024, 2, 2)]


def test_two_readings_are_no_guess() -> None:
    """A column that can be read in two ways is refused, naming a row that differs."""
    with pytest.raises(InputError, match=r"'02/01/2024' may be day/month or month/day"):
        read("01/01/2024", "02/01/2024")


@pytest.mark.parametrize("text", ["1/2/18", "24:00", "31/02/2024", "1704067200", "20240131", "soon", "2024-13-01"])
def test_what_is_no_time(text: str) -> None:
    """Two-digit years, impossible days, numbers and words are refused."""
    with pytest.raises(InputError, match=f"must be a time of a known format, but '{text}' is not"):
        read(text)


def test_mixed_formats_name_the_rows() -> None:
    """The format of most rows is taken for the right one, whatever comes first."""
    with pytest.raises(InputError, match=r"plant.csv row 1: time: .* '2024-01-01' is not like '2024-01-01 01:00'"):
        read("2024-01-01", "2024-01-01 01:00", "2024-01-01 02:00")


def test_empty_cells_stay_empty() -> None:
    """They are the check's concern."""
    assert read("2024-01-31", "", None) == [datetime(2024, 1, 31), None, None]
    assert read("", " ") == [None, None]


def test_typed_columns() -> None:
    """Parquet's dates and timestamps are taken as they are, zones converted to UTC."""
    assert read(date(2024, 1, 31)) == [datetime(2024, 1, 31)]
    assert read(datetime(2024, 1, 31, 5)) == [datetime(2024, 1, 31, 5)]
    zoned = pl.Series("time", [datetime(2024, 7, 1, 12, tzinfo=UTC)]).dt.convert_time_zone("Europe/Berlin")
    assert parse_times(zoned, "plant.parquet").to_list() == [datetime(2024, 7, 1, 12)]
    with pytest.raises(InputError, match="must hold times, but it holds numbers"):
        read(1, 2)
