"""Points of a search space: what lies in it, and why not."""

from __future__ import annotations

from typing import Any

import pytest

from chronotune.config.load import dump_recipe, load_recipe, load_space
from chronotune.config.points import contains, described, outside, searched, some
from chronotune.config.space import Choice, Fixed, FloatRange, IntRange


@pytest.mark.parametrize(
    ("parameter", "inside", "not_inside"),
    [
        (FloatRange(low=1e-5, high=1, log=True), [1e-5, 0.5, 1], [9e-6, 1.1, "0.5", True]),
        (IntRange(low=2, high=6, step=2), [2, 4.0, 6], [3, 8, 0, 2.5, "4"]),
        (Choice(values=[4, 8]), [4, 8.0], [5, "8"]),
        (Choice(values=["none", "known"]), ["none"], ["all", 1]),
        (Fixed(value=8), [8], [4, "8"]),
    ],
)
def test_contains(parameter: Any, inside: list[Any], not_inside: list[Any]) -> None:
    """Ends are inside, values between steps and of another kind are not."""
    assert all(contains(parameter, value) for value in inside)
    assert not any(contains(parameter, value) for value in not_inside)
    assert described(parameter)


def test_some_values_of_a_parameter() -> None:
    """Of a range both ends and what lies evenly between, on its steps; of all else everything, however many."""
    assert some(IntRange(low=96, high=2016, step=96), 8) == [96, 384, 672, 960, 1152, 1440, 1728, 2016]
    assert some(IntRange(low=96, high=288, step=96), 8) == [96, 192, 288]
    assert some(Choice(values=list(range(1, 11))), 8) == list(range(1, 11))
    assert some(Fixed(value=96), 8) == [96]


def test_outside_gives_every_reason() -> None:
    """Each parameter has its own; a fixed one counts, and meets conditions."""
    space = load_space("lora")
    assert outside({"windows": 8, "mode": "lora", "lora_rank": 8}, space) == {}
    assert outside({"lora_rank": 8}, space) == {}
    assert outside({"windows": 4, "mode": "full"}, space) == {
        "windows": "must be 8, 16 or 32, but is 4",
        "mode": "must be lora, but is full",
    }


def test_a_condition_must_be_met_by_the_point() -> None:
    """Where the mode is searched, a rank needs it beside it."""
    space = load_space("tiny")
    assert outside({"mode": "lora", "lora_rank": 8}, space) == {}
    assert set(outside({"lora_rank": 8}, space)) == {"lora_rank"}
    assert set(outside({"mode": "full", "lora_rank": 8}, space)) == {"lora_rank"}


def test_only_what_is_searched_is_given_to_the_sampler() -> None:
    """As the space writes it."""
    assert searched({"mode": "lora", "windows": 8.0, "learning_rate": 1}, load_space("lora")) == {
        "windows": 8,
        "learning_rate": 1.0,
    }


def test_a_point_follows_its_covariate_set() -> None:
    """A set that is searched under another name of the same columns has that name in the points too, and reloads."""
    overrides = ["data.past_only=[]", "search.enqueue=[{covariates: all}, {windows: 4}]"]
    recipe = load_recipe("quickstart", overrides)
    assert [point.values for point in recipe.search.enqueue] == [{"covariates": "known"}, {"windows": 4}]
    assert "covariates: known" in dump_recipe(recipe)
