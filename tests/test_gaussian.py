"""The default sampler: a Gaussian process over what every trial makes expected at full budget."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from chronotune import sampler as proposing
from search_parts import FakeTune
from sweep_parts import new_study, small_recipe


def test_a_gaussian_process_learns_from_trials_that_were_stopped(tmp_path: Path) -> None:
    """On a smooth curve what it proposes after its startup trials is far better at the first rung than chance."""

    def scores(sampler: str) -> list[float]:
        search = {"sampler": sampler, "startup_trials": 4}
        recipe = small_recipe(budget={"trials": 16, "windows": 27}, search=search)
        (tmp_path / sampler).mkdir()
        study = new_study(tmp_path / sampler, recipe)
        FakeTune(study, recipe).run()
        assert {trial.hyperparameters.mode for trial in study.trials if trial.hyperparameters} == {"full", "lora"}
        assert sum(trial.state == "pruned" for trial in study.trials) >= 6
        return [trial.results[0].objective for trial in study.trials]

    learnt, drawn = scores("gp"), scores("random")
    assert learnt[:4] == drawn[:4], "the startup trials are random ones"
    assert sum(learnt[4:]) < 0.8 * sum(drawn[4:])


def test_a_gaussian_process_learns_what_only_some_trials_have(tmp_path: Path) -> None:
    """The rank of LoRA: where one is much better than the others and than full, it is proposed nearly always."""
    recipe = small_recipe(budget={"trials": 28, "windows": 27}, search={"startup_trials": 12})
    study = new_study(tmp_path, recipe)
    tune = FakeTune(study, recipe)
    tune.curve = lambda point, windows: {None: 3, 2: 5, 4: 1}[point["lora_rank"]] + 1 / windows
    tune.run()
    ranks = [trial.hyperparameters.lora_rank for trial in study.trials if trial.hyperparameters]
    assert set(ranks[:12]) == {None, 2, 4}
    assert ranks[12:].count(4) >= 12


def test_a_long_sweep_is_continued_by_tpe() -> None:
    """A Gaussian process takes the longer the more trials it knows, those of earlier sweeps included."""
    recipe, until = small_recipe(), proposing.GAUSSIAN_UNTIL
    before = proposing.sampler(recipe, until - 1)
    assert isinstance(before, optuna.samplers.GPSampler)
    assert proposing.shown(before, recipe)
    for known in [(until, 0), (0, until)]:
        after = proposing.sampler(recipe, *known)
        assert isinstance(after, optuna.samplers.TPESampler)
        assert proposing.shown(after, recipe) is None


def _best_in_a_corner(point: dict[str, Any], windows: int) -> float:
    return float(3 - math.log10(point["learning_rate"]) - point["windows"] / 10 + 1 / windows)


@pytest.mark.parametrize("kind", ["asha", "none"])
def test_a_gaussian_process_repeats_no_point(tmp_path: Path, kind: str) -> None:
    """Where the best is at the end of a range it would propose that end for ever."""
    recipe = small_recipe(budget={"trials": 24, "windows": 27}, early_stopping={"kind": kind, "grace": 3})
    study = new_study(tmp_path, recipe)
    tune = FakeTune(study, recipe)
    tune.curve = _best_in_a_corner
    tune.run()
    points = [trial.hyperparameters for trial in study.trials if trial.hyperparameters]
    assert len(set(points)) == 24
    assert max(point.learning_rate for point in points) == 1e-2, "the end is proposed, but once"


def test_what_fails_is_not_proposed_for_ever(tmp_path: Path) -> None:
    """Larger batches are better, and the largest do not fit."""
    space = {**small_recipe().search_space.model_dump(), "windows": {"type": "int", "low": 1, "high": 64}}
    recipe = small_recipe(budget={"trials": 30, "windows": 27}, search={"startup_trials": 5}, search_space=space)
    study = new_study(tmp_path, recipe)
    tune = FakeTune(study, recipe)
    tune.curve = lambda point, windows: 2 - point["windows"] / 64 + 1 / windows
    tune.fails = lambda point: point["windows"] > 32
    tune.run()
    after = study.trials[8:]
    assert sum(trial.state == "failed" for trial in study.trials) >= 1
    assert sum(trial.state == "failed" for trial in after) <= len(after) // 2


def test_a_gaussian_process_that_fails_leaves_a_trial_to_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The next driver would meet the same error: the sweep could never end."""

    def fail(*_: object) -> None:
        raise torch.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr(optuna.samplers.GPSampler, "sample_relative", fail)
    threads, verbosity = torch.get_num_threads(), optuna.logging.get_verbosity()
    recipe = small_recipe(budget={"trials": 6, "windows": 27})
    study = new_study(tmp_path, recipe)
    FakeTune(study, recipe).run()
    assert len({trial.hyperparameters for trial in study.trials}) == 6
    assert "the next trial is drawn at random: the Gaussian process failed: not positive definite" in caplog.text
    assert (torch.get_num_threads(), optuna.logging.get_verbosity()) == (threads, verbosity)
