"""What a new sweep begins with: the recipe's own points, then the vendors' defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chronotune.config.points import Values, grid, outside, searched
from chronotune.config.recipe import Recipe, distinct_sets

LONGEST_OF_CHRONOS = 8192
"""Steps of context that Chronos-2 trains on unless `fit` is told otherwise."""


def vendor_defaults(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Settings that are recommended for fine-tuning Chronos-2, by where they come from.

    AutoGluon-TimeSeries 1.6 (its `Chronos2` model with `fine_tune`) trains adapters at 1e-5 on a context of 2048; the
    rank is the default of `Chronos2Pipeline.fit`. The quickstart of chronos-forecasting 2.3 trains all weights at
    1e-5 on the longest context. Both take batches of 32, which are counted as windows here, and every covariate. Their
    1000 steps are no hyperparameter: `budget.windows` decides.
    """
    columns = recipe.data.sets["all"]
    covariates = next((name for name, known in distinct_sets(recipe).items() if known == columns), "all")
    shared = {"learning_rate": 1e-5, "windows": 32, "accumulation": 1, "covariates": covariates}
    longest = min(LONGEST_OF_CHRONOS, recipe.model.max_context_length)
    return {
        "AutoGluon's default (LoRA)": {**shared, "context_length": 2048, "mode": "lora", "lora_rank": 8},
        "the quickstart's default (full)": {**shared, "context_length": longest, "mode": "full"},
    }


def first_points(recipe: Recipe) -> tuple[list[dict[str, Any]], list[str]]:
    """The points that a new sweep tries before it draws any, and what there is to say of them.

    Returns:
        One mapping a trial, with `from` and `values` (searched hyperparameters by name), no two with equal values;
        and a sentence on each thing that the user should know: what comes first, and what was left out and why.
    """
    found = [(f"search.enqueue {number}", point.values) for number, point in enumerate(recipe.search.enqueue)]
    said = []
    if recipe.search.vendor_defaults:
        for name, values in vendor_defaults(recipe).items():
            if reasons := outside(values, recipe.search_space):
                said.append(f"left out: {name}: {_joined(reasons)}")
            else:
                found.append((name, values))
    points = _distinct([(name, searched(values, recipe.search_space)) for name, values in found])
    if recipe.search.sampler == "grid":
        size = len(grid(recipe.search_space))
        said.insert(0, f"a grid of {size} points, of which {min(size, recipe.budget.trials)} are tried")
    tried = [point["from"] for point in points]
    if len(tried) > recipe.budget.trials:
        said.append(f"left out: {', '.join(tried[recipe.budget.trials :])}: budget.trials is {recipe.budget.trials}")
    tried = tried[: recipe.budget.trials]
    return points, ([f"tried first: {', '.join(tried)}"] if tried else []) + said


def within_grid(recipe: Recipe, trials: int) -> int:
    """As many trials as there are points to try: a grid ends."""
    return min(trials, len(grid(recipe.search_space))) if recipe.search.sampler == "grid" else trials


def _distinct(found: list[tuple[str, Values]]) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    for name, values in found:
        if values not in [point["values"] for point in points]:
            points.append({"from": name, "values": dict(values)})
    return points


def _joined(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {rule}" for name, rule in reasons.items())
