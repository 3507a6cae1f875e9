"""What a new sweep begins with."""

from __future__ import annotations

from chronotune.config.load import load_recipe
from chronotune.config.points import outside
from chronotune.start import first_points, vendor_defaults, within_grid

ON_GPUS = ["model=chronos-2", "search_space=full"]


def test_vendor_defaults_that_lie_in_the_space_come_first() -> None:
    """The space of the real models holds both; each is one complete point."""
    recipe = load_recipe("steel", ON_GPUS)
    points, said = first_points(recipe)
    assert [point["values"]["mode"] for point in points] == ["lora", "full"]
    assert [point["values"].get("lora_rank") for point in points] == [8, None]
    assert all(set(point["values"]) >= set(recipe.search_space.parameters) - {"lora_rank"} for point in points)
    assert said == [f"tried first: {points[0]['from']}, {points[1]['from']}"]


def test_those_outside_are_named_with_every_reason() -> None:
    """The space of LoRA holds one; the other is left out because of its mode and its context."""
    points, [first, left_out] = first_points(load_recipe("steel_lora"))
    assert [point["values"]["lora_rank"] for point in points] == [8]
    assert "mode" not in points[0]["values"], "what the space fixes is not searched"
    assert points[0]["from"] in first
    assert left_out.startswith("left out: the quickstart's default (full): context_length must be 512, 1024,")
    assert "mode must be lora, but is full" in left_out


def test_the_longest_context_is_the_model_s() -> None:
    """The quickstart trains on what the model takes."""
    for model in ("tiny", "chronos-2"):
        recipe = load_recipe("steel", [f"model={model}"])
        assert vendor_defaults(recipe)["the quickstart's default (full)"]["context_length"] == (
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
    """Its size is said, and counts conditions; other samplers go on."""
    overrides = ["search.sampler=grid", "search_space.learning_rate=1e-4", "budget.trials=7"]
    recipe = load_recipe("smoke", overrides)
    size = 2 * 2 * 2 * (1 + 2)  # windows, contexts, covariate sets, full or two ranks
    assert within_grid(recipe, 1000) == size
    assert within_grid(recipe, 7) == 7
    assert first_points(recipe)[1][0] == f"a grid of {size} points, of which 7 are tried"
    assert within_grid(load_recipe("smoke"), 1000) == 1000
