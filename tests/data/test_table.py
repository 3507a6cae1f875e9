"""CSV and Parquet files become frames in file order."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from chronotune.data.table import nearest, numbers_where_possible, read_table
from chronotune.errors import InputError


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters(delimiter: str, tmp_path: Path) -> None:
    """The header tells the delimiter; other candidates may stand in quotes below it."""
    path = tmp_path / "plant.csv"
    path.write_text(f'time{delimiter} load\n2024-01-01{delimiter}"1,5;7"\n')
    assert read_table(path).to_dicts() == [{"time": "2024-01-01", "load": "1,5;7"}]


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    """Neither gets into names or values."""
    path = tmp_path / "plant.csv"
    path.write_bytes(b"\xef\xbb\xbftime,load\r\n2024-01-01,1\r\n")
    assert read_table(path).to_dicts() == [{"time": "2024-01-01", "load": "1"}]


def test_empty_lines_keep_their_row_unless_at_the_end(tmp_path: Path) -> None:
    """Row numbers stay those of the file."""
    path = tmp_path / "plant.csv"
    path.write_text("time,load\n2024-01-01,1\n\n2024-01-03,3\n\n\n")
    assert read_table(path)["load"].to_list() == ["1", None, "3"]


def test_parquet(tmp_path: Path) -> None:
    """Its types are kept."""
    frame = pl.DataFrame({"time": ["2024-01-01"], "load": [1.5], "on": [True]})
    frame.write_parquet(path := tmp_path / "plant.parquet")
    assert read_table(path).equals(frame)


def test_a_misspelt_file_name_is_recognised(tmp_path: Path) -> None:
    """The most similar file of the folder is offered."""
    (tmp_path / "plant.csv").touch()
    with pytest.raises(InputError, match=r"Did you mean 'plant.csv'\?"):
        read_table(tmp_path / "plnat.csv")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """It is refused like a missing file."""
    with pytest.raises(InputError, match="the file must exist"):
        read_table(tmp_path)


def test_an_unclosed_quote(tmp_path: Path) -> None:
    """It is named as the usual cause of an unreadable CSV."""
    path = tmp_path / "plant.csv"
    path.write_text('time,load\n2024-01-01,"1\n2024-01-02,2\n')
    with pytest.raises(InputError, match=r"must be sound CSV, but it is not. The usual cause is an unclosed quote"):
        read_table(path)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", " 2.5", "-3e2", "+4"], [1, 2.5, -300, 4]),
        (["1", "", "NA", "NaN", "null", None], [1, None, None, None, None, None]),
        (["1", "inf"], [1, float("inf")]),
        (["", None], [None, None]),
        (["1", "two"], ["1", "two"]),
        (["NA", "EU"], ["NA", "EU"]),
        (["True", "FALSE", ""], ["true", "false", None]),
        ([True, False, None], ["true", "false", None]),
        ([1, None, 3], [1, None, 3]),
        ([1.0, float("nan")], [1, None]),
    ],
)
def test_numbers_where_possible(cells: list[object], expected: list[object]) -> None:
    """A column is numeric when every cell is, missing ones left out; text keeps its categories."""
    assert numbers_where_possible(pl.Series("load", cells)).to_list() == expected


def test_nearest() -> None:
    """Case and small slips do not matter; something else is not offered."""
    assert nearest("LOAD", ["time", "load"]) == "Did you mean 'load'?"
    assert nearest("usage", ["time", "load"]) == ""
