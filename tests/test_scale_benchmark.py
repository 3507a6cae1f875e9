"""The benchmark of 1,000 trials: its trials report what real ones do, and only our part of the driver is timed."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from chronotune.noise import LOSSES, unpacked
from chronotune.records import BUDGET, ZERO_SHOT
from chronotune.search import StudySearcher, result_of
from chronotune.study import Result, Study
from chronotune.trial import Assignment
from chronotune.tuner import _Recorder
from search_parts import FakeTune
from sweep_parts import new_study, small_recipe

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/scale.py, which is no part of the package."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("scale")


def _instant(scale: ModuleType, config: dict[str, Any]) -> Any:
    trial = object.__new__(scale.Instant)
    trial.setup(config, SimpleNamespace(recipe=small_recipe()))
    return trial


def test_instant_trials_report_what_real_ones_do(scale: ModuleType) -> None:
    """A result at every rung in the form that is recorded, the last one done; also when the worker is used again."""
    trial = _instant(scale, {ZERO_SHOT: True})
    assert trial.step()["done"]
    for number in (0, 1):
        assert trial.reset_config({"number": number, "hyperparameters": {"learning_rate": 1e-3}})
        steps = [trial.step() for _ in range(3)]
        assert [step[BUDGET] for step in steps] == [3, 9, 27]
        assert [step["done"] for step in steps] == [False, False, True]
        assert {step["number"] for step in steps} == {number}
        results = [Result(**result_of(step)) for step in steps]
        assert len(results[0].metrics) == 9
        assert len(unpacked(results[0].attributes[LOSSES])) == small_recipe().split.validation_origins
        assert results[0].objective > results[2].objective


def test_only_proposed_trials_count_as_asks(scale: ModuleType, tmp_path: Path) -> None:
    """Not the zero-shot scores, nor an answer that there is nothing; afterwards nothing is measured any more."""
    times, recipe = scale.Times(), small_recipe()
    original = StudySearcher.suggest
    with scale.timed(times):
        FakeTune(new_study(tmp_path, recipe), recipe).run()
        assert StudySearcher.suggest is not original
    assert StudySearcher.suggest is original
    assert len(times.asks) == recipe.budget.trials
    assert len(times.results) == recipe.budget.trials + 1  # ends, the zero-shot scores' too


def test_results_are_counted_and_timed(scale: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that follows from a result is in its time, and the driver's memory is looked at every so often."""
    monkeypatch.setattr(scale, "BLOCK", 2)
    monkeypatch.setattr(_Recorder, "on_trial_result", lambda self, *_, **__: time.sleep(0.01))
    monkeypatch.setattr(_Recorder, "on_trial_complete", lambda self, *_, **__: time.sleep(0.02))
    times, recorder = scale.Times(), object.__new__(_Recorder)
    with scale.timed(times):
        for _ in range(4):
            recorder.on_trial_result(1, [], None, {})
        recorder.on_trial_complete(1, [], None)
    assert times.recorded == 4
    assert 15 <= times.ms_per_result < 200
    assert len(times.memory) == 2


def test_gauges_are_set_as_in_a_sweep(scale: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every record, as progress is shown: what they cost is the driver's too."""
    seen: list[Any] = []

    def run_tuner(study: Study, assignment: Assignment, on_record: Callable[[], None]) -> None:
        on_record()

    monkeypatch.setattr(scale.tuner, "run_tuner", run_tuner)
    monkeypatch.setattr(scale, "Gauges", lambda *_: SimpleNamespace(update=seen.append))
    data: Any = None
    scale.drive(new_study(tmp_path), Assignment(small_recipe(), data, tmp_path), lambda: 0)
    assert [reading.trials for reading in seen] == [()]


def test_the_last_asks_count(scale: ModuleType) -> None:
    """The figure is for a study that is full."""
    times = scale.Times(asks=[9.0] * 10 + [0.004] * scale.LAST)
    assert times.ask_ms == pytest.approx(4)
