"""Small recipes and frames for the tests of the data layer."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from chronotune.config.recipe import Recipe

SOLAR = {
    "source": "solar",
    "time": "time",
    "target": "ghi",
    "past_only": ["temperature", "humidity"],
    "known_future": ["etr"],
    "seasons": [24],
}
STEEL = {
    "source": "steel",
    "time": "date",
    "target": "Usage_kWh",
    "past_only": ["CO2(tCO2)", "Lagging_Current_Reactive.Power_kVarh"],
    "known_future": ["NSM", "WeekStatus", "Day_of_week"],
    "seasons": [96, 672],
}
PLANT = {"source": "file", "path": "plant.csv", "time": "time", "target": "load", "seasons": [24]}
START = datetime(2024, 1, 1)


def recipe_of(data: dict[str, Any] = PLANT, *, context: int = 48, **changes: Any) -> Recipe:
    """A recipe with these data, horizon 24, and as little else as it needs."""
    space = {"learning_rate": 1e-4, "windows": 4, "context_length": context}
    declared = {
        "name": "test",
        "data": data,
        "horizon": 24,
        "model": {"name": "none", "weights": "none"},
        "search_space": space,
        "budget": {"trials": 1, "windows": 10},
        "early_stopping": {"grace": 5},
        "cluster": {"name": "local", "kind": "local"},
        **changes,
    }
    return Recipe.model_validate(declared)


def hourly(days: int = 20, seed: int = 0) -> pl.DataFrame:
    """An hourly series with a past-only number, a known number and a known category, as `sources.read` gives it."""
    steps = np.arange(24 * days)
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "time": [START + timedelta(hours=int(step)) for step in steps],
            "load": 10 + 5 * np.sin(steps * 2 * np.pi / 24) + rng.normal(size=len(steps)),
            "wind": rng.normal(size=len(steps)),
            "hour": (steps % 24).astype(float),
            "shift": np.array(["night", "early", "late"])[steps % 24 // 8],
        }
    )


def text_of(frame: pl.DataFrame) -> pl.DataFrame:
    """The same table as a CSV would hold it, times as `2024-01-31 00:15`."""
    return frame.with_columns(pl.col("time").dt.strftime("%Y-%m-%d %H:%M")).select(pl.all().cast(pl.String))


def replaced(frame: pl.DataFrame, column: str, cells: dict[int, Any]) -> pl.DataFrame:
    """The frame with other cells in a column, given by file row (from 1)."""
    values = frame[column].to_list()
    for row, value in cells.items():
        values[row - 1] = value
    return frame.with_columns(pl.Series(column, values, dtype=frame[column].dtype))


def written(frame: pl.DataFrame, path: Path) -> Path:
    """The frame as a CSV file."""
    frame.write_csv(path)
    return path
