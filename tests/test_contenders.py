"""Who is compared: zero-shot in which settings, and what each is fed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from chronotune import trees
from chronotune.contenders import BARE, BEST, SAME, TREES, ZERO_SHOT, Segment, forecasts, of_sweep
from chronotune.data.panel import FloatArray
from chronotune.data.prepare import load, prepare, trial_data
from chronotune.data.sources import read as read_data
from chronotune.scoring import Ruler
from chronotune.study import read
from sweep_parts import small_recipe
from test_evaluation import _with_a_winner


def setting(context_length: int, covariates: str, sql: float) -> dict[str, Any]:
    """A zero-shot score as the study notes it."""
    return {"context_length": context_length, "covariates": covariates, "metrics": {"sql": sql}}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        # the winner is fed 96 steps and what is known
        (
            [setting(48, "all", 0.5), setting(48, "none", 0.8), setting(96, "none", 0.7), setting(96, "known", 0.6)],
            {ZERO_SHOT: (48, "all"), SAME: (96, "known"), BARE: (96, "none"), BEST: (96, "known")},
        ),
        (
            [setting(96, "known", 0.5), setting(48, "none", 0.8)],
            {ZERO_SHOT: (96, "known"), BARE: (48, "none"), BEST: (96, "known")},
        ),
        ([setting(48, "none", 0.5)], {ZERO_SHOT: (48, "none"), SAME: (96, "known"), BEST: (96, "known")}),
        (
            [setting(48, "known", 0.5)],  # the space has no setting without covariates
            {ZERO_SHOT: (48, "known"), SAME: (96, "known"), BARE: (48, "none"), BEST: (96, "known")},
        ),
    ],
)
def test_zero_shot_stands_in_each_of_its_settings_once(
    tmp_path: Path, scores: list[dict[str, Any]], expected: dict[str, tuple[int, str]]
) -> None:
    """As validation preferred it, fed as the winner is, and without covariates; equal ones are one."""
    study = _with_a_winner(tmp_path / "one", small_recipe())
    study.note("zero_shot", scores)
    found = of_sweep(tmp_path / "one", read(tmp_path / "one"))
    assert {one.name: (one.context_length, one.covariate_set) for one in found} == expected
    assert found[0].name == ZERO_SHOT
    assert found[-1].covariates == ("etr",)


def test_an_lstm_is_a_baseline_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its place behind the naive forecasts; on validation it learns and stops as on test, so it is the same one."""
    monkeypatch.setattr("chronotune.lstm.STEPS", 25)
    recipe = small_recipe(evaluation={"trees": False, "lstm": True})
    dataset = load(recipe)
    data = trial_data(dataset, recipe)
    segments = [Segment.of_validation(data, recipe), Segment.of_test(dataset, recipe, data.validation)]
    one, other = ({about["model"]: made for about, made in forecasts([], s, None)} for s in segments)  # type: ignore[arg-type]  # no contender
    assert list(one) == ["seasonal naive (24)", "LSTM"]
    assert (one["LSTM"] == other["LSTM"]).all()
    assert Ruler.of_validation(data, recipe).score(one["LSTM"])["sql"] < 2


def test_trees_are_fitted_without_what_they_are_weighed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other targets in validation do not change its first forecast there; those for the test are fitted on it too."""
    monkeypatch.setitem(trees.SETTINGS, "max_iter", 3)
    monkeypatch.setattr(trees, "PAIRS", 2000)
    recipe = small_recipe(evaluation={"trees": True})
    frame = read_data(recipe.data)
    data = load(recipe)
    other = pl.when(pl.int_range(pl.len()) >= data.split.train_end).then(900 - pl.col("ghi")).otherwise(pl.col("ghi"))
    made: dict[str, list[FloatArray]] = {"validation": [], "test": []}
    for dataset in (data, prepare(frame.with_columns(ghi=other), recipe)):
        mine = trial_data(dataset, recipe)
        first = replace(mine, validation=mine.validation[:1])
        segments = {
            "validation": Segment.of_validation(first, recipe),
            "test": Segment.of_test(dataset, recipe, first.validation),
        }
        for name, segment in segments.items():
            made[name].append({a["model"]: f for a, f in forecasts([], segment, None)}[TREES])  # type: ignore[arg-type]  # no contender
    assert (made["validation"][0] == made["validation"][1]).all()
    assert (made["test"][0] != made["test"][1]).any()
