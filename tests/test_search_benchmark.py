"""The benchmark of the search: recorded curves are looked up on a simulated clock, and every way is told its due."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from chronotune.config.space import Hyperparameters
from chronotune.errors import ChronotuneError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a file of benchmarks/, which are no part of the package."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def table(part: Any) -> Any:
    """A made-up table over the space of solar: best at 1e-3, late ones among them, and one that diverges."""
    curves = part("curves")
    recipe = curves.recipe_of("solar")
    return curves.Table("solar", recipe, {point: _curve(curves, point, recipe.rungs) for point in _points(part)})


def _points(part: Any) -> list[Hyperparameters]:
    curves = part("curves")
    return list(curves.points_of(curves.recipe_of("solar")))


def _curve(curves: Any, point: Hyperparameters, rungs: tuple[int, ...]) -> Any:
    far = abs(math.log10(point.learning_rate) + 3) + 0.2 * (point.mode == "lora") + 0.1 * (point.windows == 16)
    far += 0.05 * (point.covariates == "none") + 0.03 * (point.context_length == 336)
    seconds = tuple(0.01 * slice_ for slice_ in (100, 200, 500))
    if point.learning_rate == 1e-3 and point.mode == "full" and point.windows == 4:
        return curves.Curve(rungs[:1], (math.nan,), seconds[:1])
    return curves.Curve(rungs, tuple(1 + 0.1 * far + 10 / rung for rung in rungs), seconds)


class Listed:
    """A way that tries given points and stops those that are named."""

    def __init__(self, points: list[Hyperparameters], stopped: tuple[str, ...] = ()) -> None:
        self.points, self.stopped, self.told = points, stopped, list[Any]()

    def suggest(self, trial: str) -> Hyperparameters | None:
        """The next one."""
        return self.points.pop(0) if self.points else None

    def report(self, trial: str, windows_seen: int, score: float) -> bool:
        """Go on unless it is named."""
        self.told.append((trial, windows_seen))
        return trial not in self.stopped

    def end(self, trial: str, windows_seen: int, score: float) -> None:
        """Write it down."""
        self.told.append((trial, windows_seen, "end"))


def _tried(part: Any, table: Any, count: int, stopped: tuple[str, ...] = (), workers: int = 2) -> tuple[Any, list[Any]]:
    points = [point for point, curve in table.curves.items() if len(curve.scores) == 3][:count]
    way = Listed(points, stopped)
    return way, list(part("simulation").Clock(way, table, workers).run())


def test_every_point_of_a_recorded_space_is_listed_once(part: Any) -> None:
    """Also with what the space fixes; LoRA's rank only beside LoRA."""
    curves = part("curves")
    for name, count in (("solar", 64), ("steel", 60)):
        points = curves.points_of(curves.recipe_of(name))
        assert len(set(points)) == len(points) == count
        assert {point.lora_rank for point in points if point.mode == "lora"} == {8}
        assert {point.lora_rank for point in points if point.mode == "full"} == {None}


@pytest.mark.parametrize("name", ["solar", "steel"])
def test_the_recorded_tables_are_of_todays_recipes(part: Any, name: str) -> None:
    """Whole, at the rungs of tuning/, and of the kind of score that trials have: else they must be recorded again."""
    table = part("curves").read_table(name)
    assert len(table.curves) >= 60
    assert all(curve.windows_seen == table.recipe.rungs for curve in table.curves.values() if len(curve.scores) == 3)


def test_a_clock_is_as_fast_as_its_workers(part: Any, table: Any) -> None:
    """Two of 8 s side by side take 8 s, one after the other 16; windows of slices under way count in proportion."""
    _, steps = _tried(part, table, 2)
    assert [step.seconds for step in steps] == pytest.approx([1, 1, 3, 3, 8, 8])
    assert [step.windows for step in steps] == pytest.approx([200, 200, 600, 600, 1600, 1600])
    assert [step.end for step in steps] == ["", "", "", "", "complete", "complete"]
    _, steps = _tried(part, table, 2, workers=1)
    assert [step.seconds for step in steps] == pytest.approx([1, 3, 8, 9, 11, 16])


def test_a_stopped_trial_frees_its_worker(part: Any, table: Any) -> None:
    """The next begins at that moment, and each way hears of every result and every end."""
    way, steps = _tried(part, table, 3, stopped=("t0",))
    assert [(step.seconds, step.end) for step in steps] == [
        (pytest.approx(seconds), end)
        for seconds, end in [(1, "pruned"), (1, ""), (2, ""), (3, ""), (4, ""), (8, "complete"), (9, "complete")]
    ]
    assert way.told[:3] == [("t0", 100), ("t0", 100, "end"), ("t1", 100)]
    assert ("t2", 800, "end") in way.told


def test_a_diverged_trial_fails(part: Any, table: Any) -> None:
    """It takes its time, counts for nothing, and its end is told."""
    [point] = [p for p, c in table.curves.items() if math.isnan(c.scores[0])][:1]
    way = Listed([point])
    [step] = part("simulation").Clock(way, table, 2).run()
    assert (step.end, step.seconds, math.isnan(step.score)) == ("failed", 1.0, True)
    assert way.told == [("t0", 100, "end")]


@pytest.mark.parametrize("name", ["ours", "random_full", "random_asha", "ray_stock", "optuna", "optuna_pruned"])
def test_every_way_searches(part: Any, table: Any, name: str) -> None:
    """The same twice; it stops early if that is what it does; it gets over trials that diverge."""
    once, again = (_steps(part, table, name, 60) for _ in range(2))
    assert once == again
    ends = {step.end for step in once}
    assert ("pruned" in ends) == (name not in ("random_full", "optuna"))
    assert "complete" in ends
    assert any(step.end == "failed" for step in _steps(part, table, name, 200))


def _steps(part: Any, table: Any, name: str, count: int) -> list[Any]:
    way = part("searchers").way(name, table, 3, 2)
    steps: Iterator[Any] = part("simulation").Clock(way, table, 2).run()
    return list(islice(steps, count))


@pytest.mark.parametrize("name", ["ours", "random_full", "random_asha"])
def test_ours_end_when_every_point_was_tried(part: Any, table: Any, name: str) -> None:
    """Once each; those of the libraries go on for ever."""
    ended = [step.point for step in _steps(part, table, name, 10_000) if step.end]
    assert len(ended) == len(set(ended)) == len(table.curves)


def test_our_way_is_told_as_a_sweep_is(part: Any, table: Any) -> None:
    """The study holds every result, and the best score of a stopped trial; random ways try the same points."""
    way = part("searchers").way("ours", table, 3, 2)
    steps: Iterator[Any] = part("simulation").Clock(way, table, 2).run()
    taken = [next(steps) for _ in range(60)]
    trials = way._study.trials
    assert sum(len(trial.results) for trial in trials) == sum(math.isfinite(step.score) for step in taken)
    assert {trial.state for trial in trials} >= {"complete", "pruned"}
    full, stopped = (_points_tried(_steps(part, table, name, 60)) for name in ("random_full", "random_asha"))
    assert full[:6] == stopped[:6]


def _points_tried(steps: list[Any]) -> list[Hyperparameters]:
    return list(dict.fromkeys(step.point for step in steps))


def test_what_a_search_came_to(part: Any, table: Any) -> None:
    """The first result near enough, the first of full budget, the gap after each budget, and the best being stopped."""
    search = part("search")
    best, worst = _best_and_worst(table)
    step = part("simulation").Step
    good, full = table.best * 1.005, table.recipe.rungs[-1]
    steps = [
        step(worst, 2.0, 5, full, "complete"),
        step(best, good, 6, full + 100, "pruned"),
        step(worst, good, 9, 2 * full, "complete"),
    ]
    outcome = search.judge(table, steps)
    assert (outcome.windows, outcome.seconds, outcome.complete_windows) == (full + 100, 6, 2 * full)
    assert outcome.found
    assert outcome.stopped_best
    assert outcome.gaps[0] == pytest.approx(2 / table.best - 1)
    assert outcome.gaps[1] == pytest.approx(0.005)
    lost = search.judge(table, steps[:1])
    most = search.AT_MOST * full  # however early it ended
    assert (lost.found, lost.windows, lost.seconds, lost.stopped_best) == (False, most, 5 * search.AT_MOST, False)


def _best_and_worst(table: Any) -> tuple[Hyperparameters, Hyperparameters]:
    ranked = sorted(table.curves, key=lambda point: table.curves[point].best)
    return ranked[0], next(point for point in reversed(ranked) if len(table.curves[point].scores) == 3)


def test_ratios_are_paired(part: Any) -> None:
    """Half of each seed's windows is half for certain, however much the seeds differ."""
    search = part("search")
    ones = [search.Outcome(w, w, w, True, False, ()) for w in (1.0, 10.0, 100.0)]
    halves = [search.Outcome(w / 2, w, w, True, False, ()) for w in (1.0, 10.0, 100.0)]
    result = search.compared(halves, ones)
    assert result["ratio"] == pytest.approx(0.5)
    assert result["ratio_interval"] == pytest.approx([0.5, 0.5])
    assert result["seconds_ratio"] == 1


def test_the_benchmark_prints_one_object(
    part: Any, table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the keys that the issue names, and in it each way on each table; the table shows every way."""
    search = part("search")
    monkeypatch.setattr(search, "read_table", lambda name: table)
    monkeypatch.setattr(search, "LOOKED_AT", 4)
    arguments = ["--tables", "solar", "--seeds", "2", "--ways", "ours", "random_full"]
    assert search.main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["windows_to_target"]) == {"ours", "random_full"}
    assert result["ratio"]["random_full"] == pytest.approx(result["tables"]["solar"]["random_full"]["ratio"])
    assert search.main(arguments) == 0
    assert "random_full" in capsys.readouterr().out


def test_recording_goes_on_where_it_ended(part: Any, tmp_path: Path) -> None:
    """Each configuration is there once and whole; a file of another problem is refused."""
    curves, record = part("curves"), part("record_curves")
    file, points, trained = tmp_path / "solar.parquet", _points(part)[:5], list[Hyperparameters]()

    def train(point: Hyperparameters) -> list[dict[str, Any]]:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(point)
        return [record._row(point, 1, 100, 0.5, 2.0, 1.0), record._row(point, 2, 300, 0.4, 4.0, 1.0)]

    with pytest.raises(KeyboardInterrupt):
        record.append(file, {"seed": 0}, points, train)
    assert pl.read_parquet(file).height == 6
    trained.clear()
    record.append(file, {"seed": 0}, points, train)
    assert trained == points[3:]
    known = curves.curves_of(curves.read_frame(file, {"seed": 0}))
    assert list(known) == points
    assert known[points[0]] == curves.Curve((100, 300), (0.5, 0.4), (3.0, 5.0))
    with pytest.raises(ChronotuneError, match=r"seed was another when these were recorded"):
        record.append(file, {"seed": 1}, points, train)


def test_an_incomplete_table_is_refused(part: Any, tmp_path: Path) -> None:
    """With how to record what is missing."""
    with pytest.raises(ChronotuneError, match=r"64 were not. Record them: python benchmarks/record_curves.py solar"):
        part("curves").read_table("solar", tmp_path)
