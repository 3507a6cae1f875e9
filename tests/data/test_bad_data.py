"""What a user is told about bad data: every case, word for word.

`messages(folder)` gives the whole table, so that documentation can print what really happens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from data_parts import PLANT, hourly, recipe_of, replaced, text_of

from chronotune.data.prepare import load
from chronotune.errors import InputError

Content = pl.DataFrame | bytes | None


@dataclass(frozen=True)
class Case:
    """One way in which the file is bad: what is done to a good one, how it is declared, and the message."""

    name: str
    content: Callable[[pl.DataFrame], Content]
    message: str
    data: dict[str, Any] = field(default_factory=dict)


def us_dates(table: pl.DataFrame) -> pl.DataFrame:
    """The first twelve days, month and day with slashes: they have two readings."""
    days = table.head(12 * 24)
    return days.with_columns(pl.col("time").str.to_datetime().dt.strftime("%m/%d/%Y %H:%M"))


def monthly(table: pl.DataFrame) -> pl.DataFrame:
    """One row for each month."""
    months = [f"{2000 + month // 12}-{month % 12 + 1:02}-01" for month in range(240)]
    return table.head(240).with_columns(pl.Series("time", months))


def two_series(table: pl.DataFrame) -> pl.DataFrame:
    """The table twice, as series a and b; b lacks most of its load."""
    empty = table.with_columns(pl.when(pl.int_range(pl.len()) % 10 == 0).then("load").alias("load"))
    return pl.concat([table.with_columns(id=pl.lit("a")), empty.with_columns(id=pl.lit("b"))])


CASES = [
    Case(
        "no such file",
        lambda table: None,
        "plant.csv: data.path: the file must exist, but it does not. "
        "Give data.path relative to the folder you are in, or absolute",
    ),
    Case(
        "neither CSV nor Parquet",
        lambda table: b"PK",
        "plant.xlsx: data.path: the file name must end in .csv, .tsv, .txt, .parquet, .pq, but it ends in .xlsx. "
        "Convert the file to CSV or Parquet",
        {"path": "plant.xlsx"},
    ),
    Case(
        "empty file",
        lambda table: b"",
        "plant.csv: data.path: the file must start with a header, but it is empty. Check what wrote it",
    ),
    Case(
        "a blank first line",
        lambda table: b"\ntime,load\n2024-01-01,1\n",
        "plant.csv: data.path: the file must start with a header, but its first line is blank. Check what wrote it",
    ),
    Case(
        "line ends of two kinds",
        lambda table: b"time,load\r,flag\n2024-01-01,1\r,1\n2024-01-02,2\r,1\n",
        "plant.csv: data.path: lines must end alike, but the header has 2 columns to one reader and 3 to another. "
        "Save the file with line ends of one kind (LF)",
    ),
    Case(
        "only a header",
        lambda table: b"time,load\n",
        "plant.csv: data.path: the file must hold rows, but it has only a header. Check what wrote it",
    ),
    Case(
        "not UTF-8",
        lambda table: "time,load\n2024-01-01,größer\n".encode("latin-1"),
        "plant.csv: data.path: the file must be UTF-8 text, but it is not. Save it as CSV UTF-8",
    ),
    Case(
        "a row with too many cells",
        lambda table: b"time,load\n2024-01-01,1\n2024-01-02,2,5\n",
        "plant.csv row 2: every row must have 2 cells like the header, but this one has 3. "
        "Quote cells that contain ','",
    ),
    Case(
        "a column twice",
        lambda table: b"time,load,load\n2024-01-01,1,2\n",
        "plant.csv: data.path: column names must differ, but 'load' appears twice. Rename one of them",
    ),
    Case(
        "Parquet that is none",
        lambda table: b"time,load\n",
        "plant.parquet: data.path: the file must be sound Parquet, but it is not. "
        "The usual cause is another kind of file, or half of one",
        {"path": "plant.parquet"},
    ),
    Case(
        "missing columns, all at once",
        lambda table: table,
        "plant.csv: data.target: the file must have the column 'Laod', but it has time, load, wind, hour, shift. "
        "Did you mean 'load'?\n"
        "plant.csv: data.known_future[0]: the file must have the column 'holiday', but it has time, load, wind, hour, "
        "shift. Name one of these",
        {"target": "Laod", "known_future": ["holiday"]},
    ),
    Case(
        "day and month cannot be told apart",
        us_dates,
        "plant.csv: time: must have one reading, but '01/02/2024 00:00' may be day/month or month/day, and no other "
        "row decides. Write times as 2018-01-31 00:15 (ISO 8601)",
    ),
    Case(
        "times of no known format",
        lambda table: replaced(table, "time", {3: "yesterday", 9: "24:00"}),
        "plant.csv rows 3, 9: time: must be times of one format, but 'yesterday' is not like '2024-01-01 00:00'. "
        "Write times as 2018-01-31 00:15 (ISO 8601)",
    ),
    Case(
        "an empty time",
        lambda table: replaced(table, "time", {480: None}),
        "plant.csv row 480: time: must be filled in every row, but 1 row is empty. "
        "Give every row its time, or delete it",
    ),
    Case(
        "not in order",
        lambda table: pl.concat([table[:99], table[100:101], table[99:100], table[101:]]),
        "plant.csv row 101: time: must ascend within a series, but 1 row is earlier than the row before. "
        "Sort the file by time, if its labels are right",
    ),
    Case(
        "the same times twice",
        lambda table: pl.concat([table[:50], table[48:]]),
        "plant.csv row 51: time: must ascend within a series, but 1 row is earlier than the row before. "
        "Sort the file by time, if its labels are right\n"
        "plant.csv rows 51, 52: time: must not repeat within a series, but 2 rows are a repetition, the first at "
        "2024-01-03 00:00:00. Keep one row for each time; if a clock change doubled an hour, write times in UTC or "
        "with their offset; if these are several series, name the column that tells them apart in data.id",
    ),
    Case(
        "gaps",
        lambda table: pl.concat([table[:50], table[53:100], table[101:]]),
        "plant.csv rows 51, 98: time: must advance by 1 hour, but 4 steps are missing before 2 rows. "
        "Add them, or set data.fill_gaps to insert rows of missing values",
    ),
    Case(
        "more gap than data, in spite of fill_gaps",
        lambda table: pl.concat([replaced(table[:1], "time", {1: "1970-01-01 00:00"}), table]),
        "plant.csv row 2: time: must advance by 1 hour, but 473,351 steps are missing before this row. "
        "data.fill_gaps inserts at most as many rows as there are, 481: check the times",
        {"fill_gaps": True},
    ),
    Case(
        "irregular steps",
        lambda table: replaced(table, "time", {7: "2024-01-01 06:01", 8: "2024-01-01 07:30"}),
        "plant.csv rows 7, 8: time: must advance in equal steps, here 1 hour, but 2 rows are between them. "
        "Resample to equal steps",
    ),
    Case(
        "months",
        monthly,
        "plant.csv rows 1, 2, 3 and 227 more: time: must advance in equal steps, here 31 days, but 230 rows are "
        "between them. Months are no equal steps: use days or weeks",
    ),
    Case(
        "text among numbers",
        lambda table: replaced(replaced(table, "load", {2: "n.v.", 5: "offline"}), "wind", {7: "1,5"}),
        "plant.csv rows 2, 5: load: must be numbers, but 2 rows are not, the first 'n.v.'. "
        "Correct the cells; leave missing ones empty\n"
        "plant.csv row 7: wind: must be numbers, but 1 row is not, the first '1,5'. Write numbers as 1234.5",
        {"past_only": ["wind"]},
    ),
    Case(
        "infinite values",
        lambda table: replaced(table, "load", {2: "inf", 4: "-inf", 6: "1e999", 8: "1e39"}),
        "plant.csv rows 2, 4, 6 and 1 more: load: must be finite, but 4 rows are infinite. Leave missing values empty",
    ),
    Case(
        "a known covariate with holes",
        lambda table: replaced(table, "hour", {470: None}),
        "plant.csv row 470: hour: must be present in every row, being known in advance, but 1 row is missing. "
        "Fill it, or move it to data.past_only",
        {"known_future": ["hour"]},
    ),
    Case(
        "a covariate that gives the target away",
        lambda table: table.with_columns(hour=pl.col("load").cast(pl.Float64) * 2),
        "plant.csv: hour: must be known in advance, but at the same time it tells 79% of what the calendar and the "
        "target's past leave open, and is not of the calendar itself (R2 0.85). If it is measured with the target, "
        "move it to data.past_only; if it is a plan or a forecast that was there before, name it in "
        "data.trust_known_future too",
        {"known_future": ["hour"]},
    ),
    Case(
        "a series that is mostly missing",
        two_series,
        "plant.csv rows 482, 483, 484 and 420 more: load: must be present in at least half of a series' rows, but 90% "
        "are missing (series b). Cut the file to where values are, or leave the series out",
        {"id": "id"},
    ),
    Case(
        "a constant target",
        lambda table: table.with_columns(load=pl.lit("4.50")),
        "plant.csv: load: must vary, but it is always 4.5. Name another target",
    ),
    Case(
        "too short for the split",
        lambda table: table.head(100),
        "plant.csv: split.test: the test segment must hold a horizon of 24 steps, but 0.2 of 100 steps, in whole "
        "strides of 24, is 0. Give it a larger share, or more data, or a shorter horizon\n"
        "plant.csv: split.validation: the validation segment must hold a horizon of 24 steps, but 0.15 of 100 steps, "
        "in whole strides of 24, is 0. Give it a larger share, or more data, or a shorter horizon",
    ),
    Case(
        "no values where validation is",
        lambda table: replaced(table, "load", dict.fromkeys(range(313, 385))),
        "plant.csv: load: must have values in the validation segment, but all from 2024-01-14 00:00:00 to 2024-01-17 "
        "00:00:00 are missing. Cut the file there, or choose another split",
    ),
]


def message_of(case: Case, folder: Path) -> str:
    """What the user reads when the file of this case is in the current folder."""
    data = {**PLANT, **case.data}
    with contextlib.chdir(folder):
        content = case.content(text_of(hourly()))
        if isinstance(content, pl.DataFrame):
            content.write_csv(data["path"])
        elif content is not None:
            Path(data["path"]).write_bytes(content)
        before = sorted(folder.iterdir())
        with pytest.raises(InputError) as caught:
            load(recipe_of(data))
        assert sorted(folder.iterdir()) == before, "something was left behind"
    return str(caught.value)


def messages(folder: Path) -> list[tuple[str, str]]:
    """Name and message of every case; `folder` is empty and stays so."""
    rows = []
    for case in CASES:
        rows.append((case.name, message_of(case, folder)))
        for path in folder.iterdir():
            path.unlink()
    return rows


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_message(case: Case, tmp_path: Path) -> None:
    """Each says where, the rule, the value and the next step; nothing is written."""
    assert message_of(case, tmp_path) == case.message


def test_the_table_for_documentation(tmp_path: Path) -> None:
    """One row for each case, with the message that the case really gives."""
    rows = messages(tmp_path)
    assert dict(rows) == {case.name: case.message for case in CASES}
    assert len(rows) == len(CASES)
