"""A whole sweep twice, the second time with every value of the test segment changed: nothing but the test scores is."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import polars as pl
import pytest

from chronotune.data.sources import solar
from chronotune.study import Reading, read
from engine_parts import small_model
from sweep_parts import small_recipe

HOURS = 24 * 100
"""Of the solar data from April on: 65 days of training, 15 of validation, 20 of test."""
CODE = """
import sys
from chronotune.cluster import connected
from chronotune.config.load import load_recipe
from chronotune.sweep import run_sweep

recipe = load_recipe("recipe.yaml")
with connected(recipe.cluster):
    for name in ("true", "false"):
        run_sweep(recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": f"{name}.parquet"})}), name)
"""


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reading, Reading]:
    """Both studies, of sweeps by one worker with finalists and everything that is chosen on validation."""
    from chronotune.config.load import dump_recipe

    place = tmp_path_factory.mktemp("unopened")
    small_model().save_pretrained(place / "weights")
    hours = solar().slice(2160, HOURS).select("time", "ghi", "etr", "temperature")
    changed = [(-3 * pl.col(name) + 7).alias(name) for name in ("ghi", "etr", "temperature")]
    hours.write_parquet(place / "true.parquet")
    is_test = hours.with_row_index().select(pl.col("index") >= HOURS * 4 // 5).to_series()
    false = hours.filter(~is_test).vstack(hours.filter(is_test).with_columns(changed))
    false.write_parquet(place / "false.parquet")
    data = {**small_recipe().data.model_dump(), "source": "file", "path": "true.parquet"}
    recipe = small_recipe(
        place / "weights",
        data=data,
        budget={"trials": 3, "windows": 27, "keep_checkpoints": 3},
        finalists={"top": 1, "seeds": 1},
        evaluation={"trees": True, "blends": True},
        cluster={"name": "local", "max_concurrent": 1},
    )
    (place / "recipe.yaml").write_text(dump_recipe(recipe))
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=place, env={**os.environ}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return read(place / "true"), read(place / "false")


def table(trials: Any) -> list[Any]:
    """What the study knows of trials, without clocks."""
    told = [(t.number, t.state, t.of, t.seed, t.hyperparameters) for t in trials]
    return [*told, *((r.windows_seen, r.objective, r.metrics) for t in trials for r in t.results)]


def test_the_trials_are_the_same(readings: tuple[Reading, Reading]) -> None:
    """Parameters, states and every score to the last digit; zero-shot and the finalists too."""
    true, false = readings
    assert len(true.trials) == 3
    assert len(true.finalists) == 1
    assert table(true.trials) == table(false.trials)
    assert table(true.finalists) == table(false.finalists)
    scores, others = ([{**one, "seconds": 0} for one in it.attributes["zero_shot"]] for it in readings)
    assert scores == others


def test_the_winner_and_its_weights_are_the_same(readings: tuple[Reading, Reading]) -> None:
    """By their SHA-256, and with them all that is chosen on validation: averages and blends, with trees too."""
    true, false = readings
    choice = true.attributes["choice"]
    assert {"best", "zero-shot"} <= choice["scores"].keys()
    assert choice["blends"] or choice["averaged"]
    assert true.attributes["winner"]["sha256"] == false.attributes["winner"]["sha256"]
    assert true.attributes["winner"] == false.attributes["winner"]
    assert choice == false.attributes["choice"]


def test_the_test_segment_was_another(readings: tuple[Reading, Reading]) -> None:
    """Or the rest would prove nothing: every test score differs."""
    scores = [{row["model"]: row["mae"] for row in (one.evaluation or {})["rows"]} for one in readings]
    assert scores[0].keys() == scores[1].keys()
    assert all(not np.isclose(scores[0][model], scores[1][model]) for model in scores[0])
    assert readings[0].attributes["identity"]["data"] != readings[1].attributes["identity"]["data"]
    assert readings[0].attributes["identity"]["ruler"] == readings[1].attributes["identity"]["ruler"]
