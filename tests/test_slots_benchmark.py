"""The benchmark of many slots: what its trials report, and what it calls efficiency."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest
from ray.tune.schedulers import TrialScheduler

from chronotune.errors import ChronotuneError
from chronotune.records import BUDGET, ZERO_SHOT
from chronotune.search import remember, result_of, scheduler
from chronotune.study import Result, TrialRecord
from sweep_parts import ask, new_study

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/slots.py, which is no part of the package."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("slots")


@pytest.fixture
def slept(slots: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long trials slept, which they do in no time."""
    seconds: list[float] = []
    monkeypatch.setattr(slots, "time", SimpleNamespace(sleep=seconds.append, time=lambda: float(len(seconds))))
    return seconds


def _trial(slots: ModuleType, recipe: Any) -> Any:
    trial = object.__new__(slots.Sleeping)
    trial.setup({ZERO_SHOT: True}, SimpleNamespace(recipe=recipe))
    return trial


def test_a_trial_sleeps_a_second_before_each_of_ten_reports(
    slots: ModuleType, slept: list[float], tmp_path: Path
) -> None:
    """In the form that is recorded; the zero-shot scores take no time, and a worker is used again."""
    recipe = slots.recipe_of(tmp_path, 4)
    trial = _trial(slots, recipe)
    assert trial.step()["done"]
    assert slept == []
    for number in (0, 1):
        assert trial.reset_config({"number": number})
        steps = [trial.step() for _ in range(slots.REPORTS)]
        assert tuple(step[BUDGET] for step in steps) == recipe.rungs
        assert [step["done"] for step in steps] == [False] * (slots.REPORTS - 1) + [True]
        told = [Result(**result_of(step)).attributes for step in steps]
        assert {one["pid"] for one in told} == {psutil.Process().pid}
        assert all(one["memory"] > 1e6 for one in told)
    assert slept == [1] * 2 * slots.REPORTS


def test_no_trial_is_stopped_early(slots: ModuleType, slept: list[float], tmp_path: Path) -> None:
    """So that all slots have the same to do: equal scores go on at every rung."""
    recipe = slots.recipe_of(tmp_path, 4)
    asha, trial = scheduler(recipe), _trial(slots, recipe)
    for number in range(4):
        trial.reset_config({"number": number})
        results = tuple(Result(**result_of(trial.step())) for _ in recipe.rungs[:-1])
        record = TrialRecord(number, "running", None, results, None, None, None)
        assert remember(asha, record) == TrialScheduler.CONTINUE


def test_efficiency_is_the_share_of_time_that_was_slept(slots: ModuleType) -> None:
    """Of all slots over the whole search, or while all have work; with what workers waited in between."""
    early, late = [slots.Sleep(0, 1), slots.Sleep(1.5, 2.5), slots.Sleep(3, 4)], [slots.Sleep(2, 3), slots.Sleep(3, 4)]
    both = [early, late]
    assert (slots.slept(both), slots.span(both)) == (5, 4)
    assert slots.efficiency(both, 2) == pytest.approx(5 / 8)
    assert slots.efficiency(both, 4) == pytest.approx(5 / 16)  # two never began
    assert slots.efficiency_full(both) == pytest.approx((0.5 + 1 + 2) / (2 * 2))
    assert math.isnan(slots.efficiency_full([early[:1], late]))  # the first had ended when the second began
    assert slots.gaps(both) == pytest.approx([0.5, 0.5, 0])


def test_what_workers_did_is_read_from_the_study(slots: ModuleType, tmp_path: Path) -> None:
    """By process, in the order of time, over all trials that it ran."""
    study = new_study(tmp_path)
    for number, pid in ((ask(study), 1), (ask(study), 2), (ask(study), 1)):
        told = {"pid": pid, "began": 10.0 - number, "ended": 11.0 - number}
        study.record(number, Result(3, 0.5, {}, told))
    assert slots.slots_of(study.read()) == [
        [slots.Sleep(8, 9), slots.Sleep(10, 11)],
        [slots.Sleep(9, 10)],
    ]


def test_nothing_is_started_that_does_not_fit(slots: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal says what is needed, and what there is."""
    free = SimpleNamespace(available=3e9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(ChronotuneError, match="32 workers may take 11 GB, but 3 GB are free"):
        slots.measure(32, 1)
