"""The declarations themselves: what they derive and what they refuse."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from chronotune.config.base import Breach, RulesError, refuse
from chronotune.config.cluster import ClusterProfile
from chronotune.config.load import dump_recipe, load_recipe, load_space
from chronotune.config.recipe import Recipe, distinct_sets
from chronotune.config.space import Choice, Fixed, FloatRange, Hyperparameters, IntRange, SearchSpace, extremes


@pytest.fixture
def recipe() -> Recipe:
    """The quickstart recipe."""
    return load_recipe("quickstart")


def test_frozen_and_closed(recipe: Recipe) -> None:
    """A declaration cannot be changed, nor hold a key that it does not know."""
    with pytest.raises(ValidationError, match="frozen"):
        recipe.horizon = 48  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra"):
        Fixed(value=1, values=[2])  # type: ignore[call-arg]


def test_rungs_end_with_the_budget() -> None:
    """Rungs grow by the reduction, and the last is where training ends, also when stopped before the schedule."""
    overrides = ["budget.windows=1000", "early_stopping.grace=100"]
    assert load_recipe("quickstart", overrides).rungs == (100, 300, 900, 1000)
    assert load_recipe("quickstart", [*overrides, "budget.stop_at=300"]).rungs == (100, 300)
    assert load_recipe("quickstart", [*overrides, "budget.stop_at=50"]).rungs == (50,)


@pytest.mark.parametrize("windows", [1, 8, 9, 800, 2592, 8640])
@pytest.mark.parametrize("reduction", [2, 3, 4])
def test_the_first_rung_fits_the_budget_by_default(windows: int, reduction: int) -> None:
    """Without an early_stopping section there are at most two rungs before the end, and exactly two if they fit."""
    overrides = [f"budget.windows={windows}", "early_stopping={}", f"early_stopping.reduction={reduction}"]
    rungs = load_recipe("quickstart", overrides).rungs
    assert len(rungs) <= 3
    assert rungs[-1] == windows
    assert rungs[0] * 2 * reduction >= windows
    assert (rungs[0] - 1) * 2 * reduction < windows


def test_early_stopping_may_be_left_out(tmp_path: Path) -> None:
    """Whole, or but for its kind; a recipe without it comes back equal from its own YAML."""
    text = dump_recipe(load_recipe("quickstart"))
    whole = tmp_path / "recipe.yaml"
    for section in ("", "early_stopping: {kind: none}\n"):
        whole.write_text(re.sub(r"early_stopping: .*\n", section, text))
        recipe = load_recipe(whole)
        assert recipe.early_stopping.grace is None
        assert recipe.rungs == (134, 402, 800)
        whole.write_text(dump_recipe(recipe))
        assert load_recipe(whole) == recipe


def test_sets_are_in_model_order(recipe: Recipe) -> None:
    """Past-only covariates come first whatever order a set is written in."""
    own = load_recipe("quickstart", ["data.covariate_sets.mine=[etr, humidity]"])
    assert own.data.sets["mine"] == ("humidity", "etr")
    assert recipe.data.sets["known"] == ("etr",)
    assert distinct_sets(recipe)["all"][-1] == "etr"


def test_stride_defaults_to_the_horizon(recipe: Recipe) -> None:
    """Forecast origins are a horizon apart unless said otherwise."""
    assert recipe.stride == 24
    assert load_recipe("quickstart", ["split.stride=6"]).stride == 6


def test_parameters_put_conditions_last() -> None:
    """Whatever a condition depends on is chosen before it."""
    assert list(load_space("tiny").parameters)[-1] == "lora_rank"


def test_conditions() -> None:
    """A parameter applies when all conditions hold, each with one value or one of several."""
    rank = IntRange(low=1, high=8, when={"mode": "lora", "windows": [4, 8]})
    assert rank.applies({"mode": "lora", "windows": 8})
    assert not rank.applies({"mode": "lora", "windows": 16})
    assert not rank.applies({"mode": "full", "windows": 8})


def test_collapse_holds_one_point() -> None:
    """The collapsed space has the values of the point and nothing left to search."""
    point = Hyperparameters(
        learning_rate=1e-4, windows=8, accumulation=2, context_length=336, covariates="known", mode="full"
    )
    space = load_space("tiny").collapse(point)
    assert [extremes(space.parameters[name]) for name in ("learning_rate", "windows", "mode")] == [
        [1e-4],
        [8],
        ["full"],
    ]
    assert all(isinstance(parameter, Fixed) for parameter in space.parameters.values())
    assert point.effective_batch == 16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FloatRange(low=2, high=1), "low must not exceed high"),
        (lambda: FloatRange(low=0, high=1, log=True), "low must be above 0 in a log range"),
        (lambda: IntRange(low=1, high=8, step=2), "step must divide high - low"),
        (lambda: IntRange(low=1, high=8, step=7, log=True), "step excludes log"),
        (lambda: Choice(values=[1, 2, 1]), "values must differ from each other"),
        (lambda: SearchSpace(learning_rate=Fixed(value=-1.0), windows=Fixed(value=1), context_length=Fixed(value=1)),
         "learning_rate must be a number above 0"),
        (lambda: load_recipe("quickstart").budget.model_validate({"trials": 1, "windows": 5, "stop_at": 6}),
         "stop_at must not exceed budget.windows"),
    ],
)  # fmt: skip
def test_rules_hold_in_python_too(make: object, message: str) -> None:
    """Declarations made in code are checked like those read from YAML."""
    assert callable(make)
    with pytest.raises(ValidationError, match=message):
        make()


def test_choices_tell_numbers_from_text() -> None:
    """1, 1.0, true and the text 1 are four different values."""
    assert len(Choice(values=[1, 1.0, True, "1"]).values) == 4


def test_refuse_collects() -> None:
    """All breaches travel in one exception; none means no exception."""
    refuse([])
    with pytest.raises(RulesError) as caught:
        refuse([Breach(("a",), "is wrong", "Mend it"), Breach(("b", "c"), "too", "Mend it")])
    assert str(caught.value) == "a is wrong; b.c too"


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("environment.pip.1", {"pip": ["peft", "--extra-index-url https://me:hunter2@host/simple"]}),
        ("environment.variables.STORE", {"variables": {"STORE": "postgresql://me:hun/hunter2@host/x"}}),
        ("environment.variables.MY_TOKEN", {"variables": {"MY_TOKEN": "hunter2"}}),
    ],
)
def test_a_job_is_given_no_secret(key: str, given: dict[str, Any]) -> None:
    """Its page on the dashboard would show it; what stands for a variable of the node is none."""
    job = {"name": "far", "kind": "existing", "address": "http://head:8265", "sweeps": "/mnt/sweeps"}
    with pytest.raises(ValidationError, match=rf"{key} (must hold no credentials|sounds like a secret)") as refusal:
        ClusterProfile.model_validate({**job, "environment": given})
    assert "hunter2" not in str([error["msg"] for error in refusal.value.errors()])
    with pytest.raises(ValidationError, match="address must hold no user"):
        ClusterProfile.model_validate({**job, "address": "http://me:hun/hunter2@head:8265"})
    allowed = {"pip": ["mine @ git+https://${GIT}@host/mine@v1"], "variables": {"STORE": "postgresql://me:${P}@host/x"}}
    assert ClusterProfile.model_validate({**job, "environment": allowed}).environment.pip == allowed["pip"]
