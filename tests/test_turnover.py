"""The benchmark against plain Ray Tune and plain Optuna: all get the same configurations and the same ruler."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest

from chronotune.config.load import load_recipe
from chronotune.data.prepare import load, trial_data
from chronotune.forecaster import predict_windows
from chronotune.proposal import Proposal
from chronotune.sampler import draw, sampler
from chronotune.study import Study
from engine_parts import small_model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a file of benchmarks/, which are no part of the package."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def recipe_of(part: Any) -> Any:
    """The quickstart as the benchmark changes it."""
    return part("turnover").recipe_of(
        SimpleNamespace(recipe="quickstart", model="tiny", trials=24, quick=False, windows=None), 7
    )


def test_the_configurations_are_those_of_a_sweep(part: Any, tmp_path: Path) -> None:
    """As a study of ours asks for them, in the midst of results."""
    recipe = recipe_of(part)
    study = Study.create(tmp_path, "s", {"identity": {}})
    asked = [study.ask(Proposal(sampler(recipe, number), draw(recipe.search_space))) for number in range(6)]
    assert [record.hyperparameters for record in asked] == list(part("turnover").configurations(recipe))[:6]


def test_plain_optuna_is_given_the_same(part: Any) -> None:
    """What is enqueued comes back as it was, fixed values included."""
    ways = part("plain_ways")
    recipe = load_recipe(
        str(BENCHMARKS.parent / "tuning" / "quickstart.yaml"),
        ["search_space.context_length=192", "search.sampler=random"],
    )
    for point in part("turnover").configurations(recipe):
        study = optuna.create_study()
        study.enqueue_trial(ways.as_config(point, recipe.search_space))
        assert ways.suggested(study.ask(), recipe.search_space) == point


def test_plain_ways_judge_by_the_same_forecasts(part: Any) -> None:
    """The untouched model, with covariates of both kinds."""
    recipe = recipe_of(part)
    data = trial_data(load(recipe), recipe)
    windows, panel, model = data.validation[:3], data.panel, small_model()
    ours = predict_windows(model, panel, windows, context_length=64, horizon=24, covariates=panel.covariates)
    theirs = part("plain_ways").forecasts(model, panel, windows, 64, 24)
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-3)


def test_the_best_is_taken_at_the_same_moment(part: Any) -> None:
    """Of a trial that went on, what it had reached by then; nothing before the first result."""
    ways, best_by = part("plain_ways"), part("turnover").best_by
    point = part("turnover").configurations(recipe_of(part))[0]
    first = ways.Trial(point, (ways.Reached(10.0, 0.9, "a"), ways.Reached(30.0, 0.5, "b")), 1.0, 0.1)
    second = ways.Trial(point, (ways.Reached(20.0, 0.8, "c"),), 1.0, 0.1)
    found = {at: best_by([first, second], at) for at in (5.0, 10.0, 25.0, 30.0)}
    assert found[5.0] is None
    assert [found[at][1].weights for at in (10.0, 25.0, 30.0)] == ["a", "c", "b"]
    assert found[25.0][0] is second
