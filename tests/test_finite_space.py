"""Searches of spaces without continuous ranges: every point once, as a grid or as a sampler proposes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search_parts import STEPPED, FakeTune
from sweep_parts import new_study, small_recipe


def _sweep(
    folder: Path, trials: int = 99, first: list[dict[str, Any]] | None = None, seed: int = 0, sampler: str = "grid"
) -> list[Any]:
    recipe = small_recipe(
        search_space=STEPPED, budget={"trials": trials, "windows": 27}, search={"sampler": sampler}, seed=seed
    )
    folder.mkdir()
    study = new_study(folder, recipe)
    study.note("first", first or [])
    FakeTune(study, recipe).run()
    return [trial.hyperparameters.model_dump(exclude_none=True) for trial in study.trials if trial.hyperparameters]


@pytest.mark.parametrize("sampler", ["grid", "tpe", "random", "gp"])
def test_a_finite_space_holds_every_point_once_and_ends(tmp_path: Path, sampler: str) -> None:
    """However many trials are allowed; a rank only with LoRA; in an order of its seed."""
    points = _sweep(tmp_path / "a", sampler=sampler)
    assert len(points) == 2 * 2 * (1 + 2)
    assert len({tuple(sorted(point.items())) for point in points}) == len(points)
    assert all(("lora_rank" in point) == (point["mode"] == "lora") for point in points)
    other = _sweep(tmp_path / "b", seed=1, sampler=sampler)
    assert other != points
    assert sorted(map(repr, other)) == sorted(map(repr, points))


def test_the_number_of_trials_caps_a_grid(tmp_path: Path) -> None:
    """The points are those that would have come first."""
    assert _sweep(tmp_path / "a", trials=5) == _sweep(tmp_path / "b")[:5]


def test_first_points_order_a_grid(tmp_path: Path) -> None:
    """Each takes all grid points that match it to the front; none is tried twice."""
    first = [
        {"from": "a", "values": {"mode": "lora", "lora_rank": 4, "windows": 2}},
        {"from": "b", "values": {"windows": 4}},
    ]
    points = _sweep(tmp_path / "a", first=first)
    assert len(points) == 12
    assert all((p.get("lora_rank"), p["windows"]) == (4, 2) for p in points[:2])
    assert [p["windows"] for p in points[2:]] == [4] * 6 + [2] * 4


@pytest.mark.parametrize("seed", range(8))
def test_a_first_point_that_was_drawn_already_gives_way(tmp_path: Path, seed: int) -> None:
    """For some seeds, what the first leaves open is drawn as the second has it."""
    first = [
        {"from": "a", "values": {"mode": "full"}},
        {"from": "b", "values": {"mode": "full", "windows": 2, "learning_rate": 1e-3}},
    ]
    points = _sweep(tmp_path / "a", first=first, sampler="tpe", seed=seed)
    assert len({tuple(sorted(point.items())) for point in points}) == 12


def test_what_a_first_point_leaves_open_repeats_none(tmp_path: Path) -> None:
    """Four of the twelve points have rank 4, and four are asked for."""
    first = [{"from": "a", "values": {"mode": "lora", "lora_rank": 4}}] * 4
    points = _sweep(tmp_path / "a", first=first, sampler="random")
    assert [point.get("lora_rank") for point in points[:4]] == [4] * 4
    assert len({tuple(sorted(point.items())) for point in points}) == 12
