"""The benchmark of long studies: its past is like a search's, and what it times is what a sweep does."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from chronotune.records import ZERO_SHOT
from chronotune.search import LAST
from chronotune.study import Reading, Study
from sweep_parts import new_study

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/grown.py, which is no part of the package."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("grown")


def test_the_past_is_like_that_of_a_search(grown: ModuleType, tmp_path: Path) -> None:
    """Trials with points of the space and results as they are recorded; one in three goes on at each rung."""
    recipe = grown.recipe_of(100, f"sqlite:///{tmp_path}/mlflow.db")
    grown.fill(study := new_study(tmp_path, recipe), recipe, 9)
    grown.fill(study, recipe, 18)
    trials = study.trials
    assert Counter(len(trial.results) for trial in trials) == {1: 12, 2: 4, 3: 2}
    assert Counter(trial.state for trial in trials) == {"pruned": 16, "complete": 2}
    assert len({trial.hyperparameters for trial in trials}) > 9
    assert trials[8].best is not None
    assert {"metrics", "attributes"} <= set(vars(trials[8].best))
    assert trials[8].windows_seen == recipe.rungs[-1]


def test_new_trials_go_through_searcher_and_recorder(grown: ModuleType) -> None:
    """At every size, in a study that is opened anew."""
    found = grown.benchmark([20, 40], 3)
    assert [row["trials"] for row in found["sizes"]] == [20, 40]
    assert all(row["ask_ms"] > 0 and row["ms_per_result"] > 0 and row["open_s"] > 0 for row in found["sizes"])
    assert found["sizes"][0]["journal_mb"] < found["sizes"][1]["journal_mb"]


def test_what_is_measured_is_recorded(grown: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new trial ends in the study, with the scheduler's decision at its last result."""
    kept: list[Reading] = []
    original = grown.run

    def run(study: Study, *rest: object) -> None:
        original(study, *rest)
        kept.append(study.read())

    monkeypatch.setattr(grown, "run", run)
    grown.benchmark([12], 2)
    [reading] = kept
    assert len(reading.trials) == 14
    for trial in reading.trials[12:]:
        assert trial.state in ("complete", "pruned")
        assert [result.attributes[LAST] for result in trial.results] == [False] * (len(trial.results) - 1) + [True]
    assert reading.attributes[ZERO_SHOT] == []
