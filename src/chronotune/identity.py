"""What a sweep is: the things that must not change between its runs, and the ruler that makes scores comparable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from chronotune.config.recipe import Recipe
from chronotune.config.space import extremes
from chronotune.data.panel import TrialData
from chronotune.data.prepare import Dataset

SCORED = "the weights' moving average"
"""What a trial's scores are of (`ema.py`); by another choice they would not compare with these."""


_RULES = ("horizon", "objective", "split", "budget", "early_stopping", "search", "finalists", "evaluation")
"""Parts of a recipe that a resumed sweep keeps; `cluster` and `tracking` may change, and `identity` has the others."""


_FREE = ("budget.stuck_minutes", "budget.keep_checkpoints")
"""Keys of these parts that may change all the same."""


def trusting(recipe: Recipe) -> Recipe:
    """A recipe that chronotune wrote, with the covariates that were not questioned when it did.

    Those that give the target away stay as they were trained on; the check of the data warns of them.
    """
    data = recipe.data
    if "trust_known_future" not in data.model_fields_set:
        data = data.model_copy(update={"trust_known_future": list(data.known_future)})
    return recipe.model_copy(update={"data": data})


def identity(recipe: Recipe, dataset: Dataset, data: TrialData) -> dict[str, str]:
    """What must not change between the runs of one sweep: in words where they are short, else as fingerprints."""
    fixed = recipe.search_space.model_dump(mode="json", exclude={"name"})
    return {
        "data": dataset.fingerprint[:16],
        "ruler": ruler(recipe, data),
        "model": f"{recipe.model.name} {recipe.model.revision or recipe.model.weights}",
        "budget": f"{recipe.budget.windows} windows, scored after {', '.join(map(str, recipe.rungs))} by {SCORED}",
        "seed": str(recipe.seed),
        "search space": _fingerprint(fixed),
    }


def rules(recipe: Recipe) -> dict[str, Any]:
    """By dotted key, what of a recipe decides what is tried, what is stopped and what wins, as JSON values."""
    values = recipe.model_dump(mode="json", include=set(_RULES))
    found = dict(chain.from_iterable(_flat(part, value) for part, value in values.items()))
    return {key: value for key, value in found.items() if key not in _FREE} | {"data.seasons": recipe.data.seasons}


def searched_sets(recipe: Recipe) -> dict[str, list[str]]:
    """By dotted key, the columns of the recipe's own covariate sets that the space can ask for."""
    named = [name for name in extremes(recipe.search_space.covariates) if name in recipe.data.covariate_sets]
    return {f"data.covariate_sets.{name}": list(recipe.data.sets[name]) for name in named}


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}", inner)
    else:
        yield key, value


def ruler(recipe: Recipe, data: TrialData) -> str:
    """What validation scores are measured with: scores of sweeps compare only when theirs are equal."""
    windows = [[window.series, window.origin] for window in data.validation]
    return f"{len(windows)} windows of {data.horizon} steps by {recipe.objective}, " + _fingerprint(
        [windows, data.scales.tolist(), "of quantiles in order"]  # as `forecaster` gives them
    )


def _fingerprint(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
