"""The evaluation's numbers, without a model."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from chronotune.config.recipe import Recipe
from chronotune.data.prepare import prepare
from chronotune.evaluation import _score
from sweep_parts import small_recipe

DATA = {"source": "file", "path": "p.csv", "time": "time", "target": "load", "id": "site", "seasons": [24]}


def _recipe() -> Recipe:
    space: dict[str, Any] = {"learning_rate": 1e-4, "windows": 4, "context_length": 48}
    return small_recipe(data=DATA, search_space=space)


def _frame() -> pl.DataFrame:
    """Twenty days: one series that is 0 in the last five, and one that begins there."""
    hours = pl.DataFrame({"step": range(480)}).with_columns(
        time=pl.datetime(2024, 1, 1) + pl.duration(hours="step"), load=(pl.col("step") % 24 % 7).cast(pl.Float64)
    )
    stops = hours.with_columns(load=pl.when(pl.col("step") < 360).then("load").otherwise(0.0), site=pl.lit("stops"))
    begins = hours.filter(pl.col("step") >= 360).with_columns(load=pl.col("load") * 1000, site=pl.lit("begins"))
    return pl.concat([stops, begins]).drop("step")


def test_series_without_a_past_and_numbers_without_a_meaning() -> None:
    """A series that training does not know is in no test window; a metric of nothing is null, as JSON wants it."""
    recipe = _recipe()
    dataset = prepare(_frame(), recipe)
    evaluation = _score([], dataset, recipe, lambda *_: None)  # type: ignore[arg-type]  # no contender
    assert evaluation["windows"] == len(dataset.split.test_origins)
    [row] = evaluation["rows"]
    assert row["wql"] is None
    assert row["mae"] == 0.0
    json.dumps(evaluation, allow_nan=False)
