"""Extending a sweep: what is added, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronotune.config.recipe import Recipe
from chronotune.errors import InputError
from chronotune.study import Study
from chronotune.sweep import _extend, _refuse_extension
from chronotune.tuner import minutes_of
from sweep_parts import ask, new_study, result, small_recipe


def _timed(folder: Path, minutes: float | None, spent: float) -> tuple[Study, Recipe]:
    recipe = small_recipe(budget={"trials": 4, "windows": 27, "minutes": minutes})
    study = new_study(folder, recipe)
    study.note("seconds", spent * 60)
    return study, recipe


def test_trials_and_minutes_add_up(tmp_path: Path) -> None:
    """To what was wanted, extension after extension; patience counts from here."""
    study, recipe = _timed(tmp_path, 10, spent=10)
    number = ask(study)
    study.record(number, result(27, 0.5))
    study.finish(number, full_budget=27)
    for _ in range(2):
        _refuse_extension(recipe, study, 20, 5)
        _extend(recipe, study, 20, 5)
    assert [study.attribute(key) for key in ("trials", "minutes", "extended")] == [44, 20, 1]


def test_a_resume_extends_nothing(tmp_path: Path) -> None:
    """It only goes on."""
    study, recipe = _timed(tmp_path, 10, spent=3)
    _refuse_extension(recipe, study, 0, 0)
    _extend(recipe, study, 0, 0)
    assert [study.attribute(key) for key in ("trials", "minutes", "extended")] == [4, None, None]


def test_trials_without_time_are_refused(tmp_path: Path) -> None:
    """They would never start; with minutes, or with some of them left, they do."""
    study, recipe = _timed(tmp_path, 10, spent=10)
    with pytest.raises(InputError, match=r"budget\.minutes \(10\) is spent. Add some with --minutes"):
        _refuse_extension(recipe, study, 20, 0)
    _refuse_extension(recipe, study, 20, 1)
    study.note("seconds", 599)
    _refuse_extension(recipe, study, 20, 0)


def test_added_minutes_begin_where_the_time_was_spent(tmp_path: Path) -> None:
    """Trials that ran when the limit came went beyond it; and from its first word on the sweep is unfinished."""
    study, recipe = _timed(tmp_path, 10, spent=25)
    study.note("ended", "2026-01-01")
    _refuse_extension(recipe, study, 20, 10)
    _extend(recipe, study, 20, 10)
    assert minutes_of(recipe, study) == 35
    assert study.attribute("ended") is None


def test_minutes_without_a_limit_are_refused(tmp_path: Path) -> None:
    """There is nothing that they add to."""
    study, recipe = _timed(tmp_path, None, spent=3)
    with pytest.raises(InputError, match="has no limit of time"):
        _refuse_extension(recipe, study, 0, 5)


def test_a_grid_is_extended_to_its_last_point(tmp_path: Path) -> None:
    """And not beyond."""
    space = {"learning_rate": 1e-3, "windows": {"type": "int", "low": 1, "high": 6}, "context_length": 48}
    recipe = small_recipe(search_space=space, search={"sampler": "grid"})
    study = new_study(tmp_path, recipe)
    _refuse_extension(recipe, study, 20, 0)
    _extend(recipe, study, 20, 0)
    assert study.attribute("trials") == 6
    with pytest.raises(InputError, match="all 6 were wanted already"):
        _refuse_extension(recipe, study, 20, 0)
    study.note("trials", 20)  # as a sweep of before, which repeated points
    with pytest.raises(InputError, match="all 20 were wanted already"):
        _refuse_extension(recipe, study, 5, 0)
    _extend(recipe, study, 0, 0)
    assert study.attribute("trials") == 20
