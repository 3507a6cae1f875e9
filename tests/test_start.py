"""What a new sweep begins with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chronotune import sweep
from chronotune.config.load import dump_recipe, load_recipe
from chronotune.config.points import outside
from chronotune.config.recipe import Recipe
from chronotune.config.space import Hyperparameters
from chronotune.data.prepare import load, trial_data
from chronotune.errors import InputError
from chronotune.identity import identity
from chronotune.search import FIRST, IMPORTS
from chronotune.start import BEST, Start, first_points, start, vendor_defaults, within_space
from chronotune.study import Study
from sweep_parts import POINT, ask, result, small_recipe

ON_GPUS = ["model=chronos-2", "search_space=full"]


def test_vendor_defaults_that_lie_in_the_space_come_first() -> None:
    """The space of the real models holds both; each is one complete point."""
    recipe = load_recipe("steel", ON_GPUS)
    points, said = first_points(recipe)
    assert [point["values"]["mode"] for point in points] == ["lora", "full"]
    assert [point["values"].get("lora_rank") for point in points] == [8, None]
    assert all(set(point["values"]) >= set(recipe.search_space.parameters) - {"lora_rank"} for point in points)
    assert said == [f"tried first: {points[0]['from']}, {points[1]['from']}"]


def test_those_outside_are_named_with_every_value_that_is() -> None:
    """The space of LoRA holds one; the other is left out because of its mode and its context."""
    points, [first, left_out] = first_points(load_recipe("steel_lora"))
    assert [point["values"]["lora_rank"] for point in points] == [8]
    assert "mode" not in points[0]["values"], "what the space fixes is not searched"
    assert points[0]["from"] in first
    assert left_out == (
        "left out, outside the search space: Chronos-2's default (full) with context_length 8192, mode full"
    )


def test_the_longest_context_is_the_model_s() -> None:
    """The quickstart trains on what the model takes."""
    for model in ("tiny", "chronos-2"):
        recipe = load_recipe("steel", [f"model={model}"])
        assert vendor_defaults(recipe)["Chronos-2's default (full)"]["context_length"] == (
            recipe.model.max_context_length
        )


def test_every_covariate_under_the_name_that_is_searched() -> None:
    """Where all and known are the same columns, only one of the names is in the space."""
    recipe = load_recipe("steel", [*ON_GPUS, "data.past_only=[]"])
    assert {values["covariates"] for values in vendor_defaults(recipe).values()} == {"known"}
    assert all(not outside(values, recipe.search_space) for values in vendor_defaults(recipe).values())


def test_they_can_be_switched_off_and_own_points_come_before_them() -> None:
    """Equal points are tried once."""
    vendors = first_points(load_recipe("steel", ON_GPUS))[0]
    own = "search.enqueue=[{windows: 8}, {learning_rate: 1e-5, windows: 32, accumulation: 1, covariates: all,"
    own += " context_length: 8192, mode: full}]"
    both = first_points(load_recipe("steel", [*ON_GPUS, own]))[0]
    assert [point["values"] for point in both] == [{"windows": 8}, vendors[1]["values"], vendors[0]["values"]]
    assert len(first_points(load_recipe("steel", [*ON_GPUS, own, "search.vendor_defaults=false"]))[0]) == 2
    assert first_points(load_recipe("steel", [*ON_GPUS, "search.vendor_defaults=false"])) == ([], [])


def test_points_beyond_the_trials_are_named() -> None:
    """They would be tried by an extension."""
    points, said = first_points(load_recipe("steel", [*ON_GPUS, "budget.trials=1"]))
    assert len(points) == 2
    assert said == [f"tried first: {points[0]['from']}", f"left out: {points[1]['from']}: budget.trials is 1"]


def test_a_grid_ends() -> None:
    """Its size is said, and counts conditions; a space with a continuous range goes on."""
    overrides = ["search.sampler=grid", "search_space.learning_rate=1e-4", "budget.trials=7"]
    recipe = load_recipe("smoke", overrides)
    size = 2 * 2 * 2 * (1 + 2)  # windows, contexts, covariate sets, full or two ranks
    assert within_space(recipe, 1000) == size
    assert within_space(recipe, 7) == 7
    assert first_points(recipe)[1][0] == f"a grid of {size} points, of which 7 are tried"
    assert within_space(load_recipe("smoke"), 1000) == 1000


def test_a_finite_space_ends_with_any_sampler() -> None:
    """Fewer points than trials are said; more are not worth a word."""
    recipe = load_recipe("smoke", ["search_space.learning_rate=1e-4", "budget.trials=40"])
    assert within_space(recipe, 40) == 24
    assert first_points(recipe)[1][0] == "a space of 24 points, of which 24 are tried"
    said = first_points(load_recipe("smoke", ["search_space.learning_rate=1e-4", "budget.trials=24"]))[1]
    assert not any("points" in sentence for sentence in said)


IDENTITY = {"data": "d", "ruler": "r", "model": "m", "budget": "b", "seed": "0", "search space": "s"}
TOLD = "trials of earlier count for the sampler"


def _earlier(
    folder: Path, points: list[Hyperparameters], recipe: Recipe | None = None, known: dict[str, Any] = IDENTITY
) -> Path:
    """A sweep whose trial `n` has the n-th point and the score n + 1 but for the last, which was stopped at 0.5."""
    folder.mkdir()
    attributes = {"recipe": (recipe or small_recipe()).model_dump(mode="json"), "identity": known, "trials": 9}
    study = Study.create(folder, folder.name, attributes)
    for number, point in enumerate(points):
        ask(study)
        study._storage.set_trial_user_attr(study._id(number), "hyperparameters", point.model_dump(exclude_none=True))
        last = number == len(points) - 1
        study.record(number, result(9, number + 2.0))
        study.record(number, result(18 if last else 27, 0.5 if last else number + 1.0))
        study.finish(number, full_budget=27)
    return folder


POINTS = [POINT.model_copy(update={"learning_rate": rate}) for rate in (1e-4, 2e-4, 3e-4, 4e-4, 1.0, 5e-4)]
INSIDE = [0, 1, 2, 3, 5]
"""Those of them that the small recipe's space holds."""


def _started(folder: Path, identity: dict[str, str] | None = None, **search: Any) -> Start:
    recipe = small_recipe(search={"warm_start": [str(folder)], **search})
    return start(recipe, {**IDENTITY, **(identity or {})})


def test_a_new_study_holds_what_it_begins_with(tmp_path: Path) -> None:
    """First points and earlier results are noted once, and read by every driver."""
    first: dict[str, Any] = {"search": {"enqueue": [POINTS[1].model_dump(exclude_none=True)]}}
    recipe = small_recipe(**first)
    dataset = load(recipe)
    data = trial_data(dataset, recipe)
    folder = _earlier(tmp_path / "earlier", POINTS, known=identity(recipe, dataset, data))
    first["search"]["warm_start"] = [str(folder)]
    noted = sweep._attributes(small_recipe(**first), dataset, data)
    assert [point["values"]["learning_rate"] for point in noted[FIRST]] == [POINTS[1].learning_rate]
    assert [trial["values"]["learning_rate"] for trial in noted[IMPORTS]] == [
        POINTS[number].learning_rate for number in INSIDE
    ]


def test_results_by_the_same_ruler_count(tmp_path: Path) -> None:
    """All that ended and lie in the space, at every rung; nothing is tried again; seed and space may differ."""
    folder = _earlier(tmp_path / "earlier", POINTS)
    begun = _started(folder, {"seed": "1", "search space": "other"})
    assert begun.points == []
    assert [trial["values"]["learning_rate"] for trial in begun.imports] == [
        POINTS[number].learning_rate for number in INSIDE
    ]
    assert [trial["state"] for trial in begun.imports] == ["complete"] * 4 + ["pruned"]
    assert begun.imports[1]["results"] == [[9, 3.0], [27, 2.0]]
    assert begun.said[0] == f"5 of 6 {TOLD}"
    assert json.loads(json.dumps(begun.imports)) == begun.imports


@pytest.mark.parametrize("part", ["data", "ruler", "model", "budget"])
def test_by_another_ruler_only_the_best_points_are_tried(tmp_path: Path, part: str) -> None:
    """Of full budget first, however good an early stopped one was; what differs is named."""
    begun = _started(_earlier(tmp_path / "earlier", POINTS), {part: "another"})
    assert begun.imports == []
    assert [point["values"]["learning_rate"] for point in begun.points] == [1e-4, 2e-4, 3e-4]
    assert len(begun.points) == BEST
    assert begun.said[0] == f"of earlier only the 3 best points of the space are tried, because {part} differs"


@pytest.mark.parametrize("sampler", ["random"])
def test_for_a_sampler_that_does_not_learn_points_are_tried_too(tmp_path: Path, sampler: str) -> None:
    """The results would be of no use."""
    begun = _started(_earlier(tmp_path / "earlier", POINTS), sampler=sampler)
    assert begun.imports == []
    assert len(begun.points) == BEST
    assert f"sampler {sampler} does not learn" in begun.said[0]


def test_covariate_sets_are_compared_by_their_columns(tmp_path: Path) -> None:
    """The same name of other columns is another set."""
    data = {**small_recipe().data.model_dump(), "known_future": [], "past_only": ["etr"]}
    folder = _earlier(
        tmp_path / "earlier", [POINT.model_copy(update={"covariates": "all"})] * 2, small_recipe(data=data)
    )
    assert [trial["values"]["covariates"] for trial in _started(folder).imports] == ["known", "known"]


def test_own_points_come_before_those_of_earlier_sweeps(tmp_path: Path) -> None:
    """And equal ones are tried once."""
    first = POINTS[1].model_dump(exclude_none=True)
    begun = _started(_earlier(tmp_path / "earlier", POINTS), {"data": "another"}, enqueue=[first])
    assert [point["values"]["learning_rate"] for point in begun.points] == [2e-4, 1e-4, 3e-4]


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(InputError, match=r"holds study\.journal"):
        _started(tmp_path)


def test_earlier_sweeps_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their folders become absolute."""
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("smoke", ["search.warm_start=[sweeps/one]"])
    assert recipe.search.warm_start == [str(tmp_path / "sweeps/one")]
    assert f"{tmp_path}/sweeps/one" in dump_recipe(recipe)
