"""Columns as labels of forecast steps."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from data_parts import PLANT, SOLAR, hourly, recipe_of

from chronotune.data.labels import column_labels
from chronotune.data.panel import Window
from chronotune.data.prepare import load, prepare
from chronotune.data.sources import read
from chronotune.errors import InputError

PANEL = {**PLANT, "id": "site"}


def test_labels_are_the_values_of_the_file_at_each_step() -> None:
    """Of each series of a panel, wherever it begins, and None behind its end."""
    late = hourly().with_columns(site=pl.lit("late"))[100:]
    frame = pl.concat([hourly().with_columns(site=pl.lit("a")), late.with_columns(shift=pl.col("shift") + "!")])
    recipe = recipe_of(PANEL)
    panel = prepare(frame, recipe).panel
    labels = column_labels(frame, recipe.data, "shift", panel, [Window(0, 7), Window(1, 7), Window(1, 378)], 3)
    assert labels.tolist() == [
        ["night", "early", "early"],
        ["night!" if (100 + 7) % 24 < 8 else "early!"] + ["early!"] * 2,
        ["late!", "late!", None],
    ]


def test_numbers_are_labels_too() -> None:
    """As text."""
    recipe = recipe_of(PLANT)
    labels = column_labels(hourly(), recipe.data, "hour", prepare(hourly(), recipe).panel, [Window(0, 23)], 2)
    assert labels.tolist() == [["23.0", "0.0"]]


def test_a_column_of_too_many_values_is_refused() -> None:
    """They are no segments."""
    recipe = recipe_of(PLANT)
    with pytest.raises(InputError, match="at most 50 distinct values, but 'wind' has 480"):
        column_labels(hourly(), recipe.data, "wind", prepare(hourly(), recipe).panel, [Window(0, 23)], 2)


def test_a_column_without_a_role_is_read_when_it_is_a_segment() -> None:
    """One that is not there is named with its key."""
    config = recipe_of(SOLAR).data
    assert "wind_speed" not in read(config).columns
    assert "wind_speed" in read(config, ["wind_speed"]).columns
    with pytest.raises(InputError, match=r"evaluation\.segments\[0\].*'nowhere'"):
        read(config, ["nowhere"])


def test_segments_are_checked_with_the_data(tmp_path: Path) -> None:
    """When they are loaded, not after the search; they change nothing else."""
    path = tmp_path / "plant.csv"
    hourly().write_csv(path)
    data = {**PLANT, "path": str(path)}
    with pytest.raises(InputError, match="at most 50 distinct values, but 'wind' has 480"):
        load(recipe_of(data, evaluation={"segments": ["shift", "wind"]}))
    told = load(recipe_of(data, evaluation={"segments": ["shift"]}))
    assert told.fingerprint == load(recipe_of(data)).fingerprint
