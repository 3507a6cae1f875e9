"""What a sweep is: the things that must not change between its runs, and the ruler that makes scores comparable."""

from __future__ import annotations

import hashlib
import json

from chronotune.config.recipe import Recipe
from chronotune.data.prepare import Dataset, TrialData


def identity(recipe: Recipe, dataset: Dataset, data: TrialData) -> dict[str, str]:
    """What must not change between the runs of one sweep: in words where they are short, else as fingerprints."""
    fixed = recipe.search_space.model_dump(mode="json", exclude={"name"})
    return {
        "data": dataset.fingerprint[:16],
        "ruler": ruler(recipe, data),
        "model": f"{recipe.model.name} {recipe.model.revision or recipe.model.weights}",
        "budget": f"{recipe.budget.windows} windows, scored after {', '.join(map(str, recipe.rungs))}",
        "seed": str(recipe.seed),
        "search space": _fingerprint(fixed),
    }


def ruler(recipe: Recipe, data: TrialData) -> str:
    """What validation scores are measured with: scores of sweeps compare only when theirs are equal."""
    windows = [[window.series, window.origin] for window in data.validation]
    return f"{len(windows)} windows of {data.horizon} steps by {recipe.objective}, " + _fingerprint(
        [windows, data.scales.tolist()]
    )


def _fingerprint(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
