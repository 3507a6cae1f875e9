"""The evaluation's numbers, without a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from chronotune.config.model import ModelPreset
from chronotune.config.recipe import Recipe
from chronotune.data.panel import FloatArray, Panel, Window
from chronotune.data.prepare import load, prepare
from chronotune.data.windows import actuals
from chronotune.evaluation import BEST, ZERO_SHOT, Contender, _score
from chronotune.metrics import EVALUATION_LEVELS
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
    evaluation, tables = _score([], dataset, recipe, lambda *_: None)  # type: ignore[arg-type]  # no contender
    assert evaluation["verdict"] is None
    assert [row["segment"] for row in tables["series"]] == ["stops"]
    assert evaluation["windows"] == len(dataset.split.test_origins)
    [row] = evaluation["rows"]
    assert row["wql"] is None
    assert row["mae"] == 0.0
    json.dumps([evaluation, tables], allow_nan=False)


def _contender(name: str, error: int) -> Contender:
    """A model that is wrong by `error`, which it finds in its context length."""
    return Contender(name, ModelPreset(name="m", weights="none", max_context_length=512), error, (), "none")


def _wrong_by(_: ModelPreset, panel: Panel, windows: Sequence[Window], error: int, __: Sequence[str]) -> FloatArray:
    truth = actuals(panel, windows, 24)
    noise = np.random.default_rng(error).normal(1, 0.1, truth.shape)
    return np.repeat((truth + error * noise)[:, None], len(EVALUATION_LEVELS), axis=1)


@pytest.mark.parametrize("objective", ["sql", "wql", "mase", "mae", "rmse"])
def test_the_pair_of_validation_gets_a_verdict(objective: Any) -> None:
    """Whatever the objective, its gain is that of the table, and what is clearly better is shipped."""
    recipe = small_recipe(objective=objective)
    pair = [_contender(ZERO_SHOT, 10), _contender("zero-shot, same inputs", 1), _contender(BEST, 9)]
    evaluation, tables = _score(pair, load(recipe), recipe, _wrong_by, 1)
    scores = {row["model"]: row[objective] for row in evaluation["rows"]}
    verdict = evaluation["verdict"]
    assert verdict["gain"] == pytest.approx(1 - scores[BEST] / scores[ZERO_SHOT])
    assert verdict["gain"] == pytest.approx(0.1, abs=0.02)
    assert (verdict["decision"], verdict["days"], verdict["unit"]) == ("ship the challenger", 73, "days")
    assert verdict["by_series"] is None
    assert len([row for row in tables["hour"] if row["model"] == BEST]) == 24
    worse, _ = _score([_contender(ZERO_SHOT, 9), _contender(BEST, 10)], load(recipe), recipe, _wrong_by, 2)
    assert worse["verdict"]["decision"] == "keep zero-shot"
    assert "opened 2 times" in worse["verdict"]["sentence"]


def test_a_panel_gets_its_series_counted_and_few_days_no_verdict(tmp_path: Path) -> None:
    """Four test days of two series, the errors also told apart by a column without a role."""
    frame = pl.concat([_frame().filter(site="stops").with_columns(site=pl.lit(name)) for name in "ab"])
    path = tmp_path / "p.csv"
    frame.with_columns(shift=pl.when(pl.col("time").dt.hour() < 8).then(pl.lit("night"))).write_csv(path)
    space: dict[str, Any] = {"learning_rate": 1e-4, "windows": 4, "context_length": 48}
    data = {**DATA, "path": str(path)}
    recipe = small_recipe(data=data, search_space=space, evaluation={"trees": True, "segments": ["shift"]})
    evaluation, tables = _score([_contender(ZERO_SHOT, 4), _contender(BEST, 2)], load(recipe), recipe, _wrong_by)
    assert evaluation["verdict"]["decision"] == "not enough test windows"
    assert (evaluation["verdict"]["days"], evaluation["verdict"]["by_series"]["series"]) == (4, 2)
    best = [row for row in tables["shift"] if row["model"] == BEST]
    assert [(row["segment"], row["observed"]) for row in best] == [("night", 4 * 2 * 8)]
    rows = {row["model"]: row for row in evaluation["rows"]}
    assert rows["boosted trees"]["context_length"] is None
    assert 0 < rows["boosted trees"]["sql"] < rows["seasonal naive (24)"]["sql"] + 1
