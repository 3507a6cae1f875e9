"""Forecasts for a user: what is refused before any weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import chronotune
from chronotune.errors import InputError

COLUMNS = chronotune.Columns(time="time", target="load", past_only=("wind",))


def a_day() -> pl.DataFrame:
    """24 hours of numbers."""
    times = [f"2024-01-01 {hour:02}:00" for hour in range(24)]
    return pl.DataFrame(
        {"time": times, "load": [float(h % 7) for h in range(24)], "wind": [1.0 + h for h in range(24)]}
    )


def with_cell(column: str, value: Any) -> pl.DataFrame:
    """The day as text, with another value in its row 5."""
    text = a_day().with_columns(pl.col("load", "wind").cast(pl.String))
    cells = text[column].to_list()
    cells[4] = value
    return text.with_columns(pl.Series(column, cells))


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    """A preset whose weights do not exist."""
    path = tmp_path / "none.yaml"
    path.write_text("name: none\nweights: /nowhere\n")
    return path


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("load", "broken", "data row 5: load: must be numbers, but 1 row is not, the first 'broken'"),
        ("wind", "calm", "data row 5: wind: must be numbers"),
        ("load", "inf", "data row 5: load: must be finite, but 1 row is infinite"),
        ("wind", "-inf", "data row 5: wind: must be finite"),
    ],
)
def test_values_are_checked_as_in_training(preset: Path, column: str, value: str, words: str) -> None:
    """Text among numbers and infinities are the user's to mend, with their rows."""
    with pytest.raises(InputError, match=words):
        chronotune.forecast(preset, with_cell(column, value), 4, columns=COLUMNS)


def test_a_covariate_of_nothing_but_text_is_refused(preset: Path) -> None:
    """The model was not trained with categories there, so there is no number for them."""
    frame = a_day().with_columns(wind=pl.lit("strong"))
    with pytest.raises(InputError, match="wind: must be numbers, but 24 rows are not"):
        chronotune.forecast(preset, frame, 4, columns=COLUMNS)
