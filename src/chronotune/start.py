"""What a new sweep begins with: the recipe's own points, earlier sweeps, the vendors' defaults.

All of it is written into the study when it is made, so that a resume needs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chronotune.config.points import Values, outside, searched, size
from chronotune.config.recipe import DataConfig, Recipe, distinct_sets
from chronotune.study import Reading, TrialRecord, read

LONGEST_OF_CHRONOS = 8192
"""Steps of context that Chronos-2 trains on unless `fit` is told otherwise."""

RULER = ("data", "ruler", "model", "budget")
"""Parts of a sweep's identity that must be equal for the results of one to count in another."""

BEST = 3
"""Points that are tried again when an earlier sweep's results do not count."""


@dataclass(frozen=True)
class Start:
    """What a study is given when it is made, as JSON values."""

    points: list[dict[str, Any]]
    """For the first trials, one each: `from`, and `values` by name; no two with equal values."""
    imports: list[dict[str, Any]]
    """Trials of earlier sweeps that count for the sampler: `from`, `state`, `values`, `results` (windows, score)."""
    said: list[str]
    """A sentence on each thing that the user should know: what comes first, and what was left out and why."""


def start(recipe: Recipe, identity: Mapping[str, str]) -> Start:
    """What a new sweep of `recipe` begins with; `identity` is its own.

    Raises:
        InputError: A folder of `search.warm_start` holds no sweep.
    """
    found, imports, told = [], [], []
    for folder in recipe.search.warm_start:
        reading = read(Path(folder))
        trials = _inside(reading, recipe)
        why = _why_not(reading, recipe, identity)
        if not why:
            imports += [_import(reading.name, trial, values) for trial, values in trials]
            told.append(f"{len(trials)} of {len(reading.trials)} trials of {reading.name} count for the sampler")
        else:
            best = sorted(trials, key=lambda pair: _rank(pair[0]))[:BEST]
            found += [(f"trial {trial.number} of {reading.name}", values) for trial, values in best]
            told.append(f"of {reading.name} only the {len(best)} best points of the space are tried, because {why}")
    points, said = first_points(recipe, found)
    return Start(points, imports, told + said)


def _inside(reading: Reading, recipe: Recipe) -> list[tuple[TrialRecord, Values]]:
    """Ended trials with a result whose points lie in the space, and the part of them that is searched."""
    earlier = DataConfig.model_validate(reading.attributes["recipe"]["data"]).sets
    names = {columns: name for name, columns in distinct_sets(recipe).items()}
    found: list[tuple[TrialRecord, Values]] = []
    for trial in reading.trials:
        if trial.state not in ("complete", "pruned") or not trial.best or not trial.hyperparameters:
            continue
        values = trial.hyperparameters.model_dump(exclude_none=True)
        values["covariates"] = names.get(earlier[values["covariates"]], "")  # the same columns may have another name
        if not outside(values, recipe.search_space):
            found.append((trial, searched(values, recipe.search_space)))
    return found


def _why_not(reading: Reading, recipe: Recipe, identity: Mapping[str, str]) -> str:
    """Why the results of an earlier sweep do not count; empty when they do."""
    theirs = reading.attributes["identity"]
    if differing := [key for key in RULER if theirs.get(key) != identity.get(key)]:
        return f"{' and '.join(differing)} differ{'s' if len(differing) == 1 else ''}"
    return "" if recipe.search.sampler in ("tpe", "gp") else f"sampler {recipe.search.sampler} does not learn"


def _rank(trial: TrialRecord) -> tuple[bool, float, int]:
    assert trial.best is not None
    return trial.state != "complete", trial.best.objective, trial.number


def _import(name: str, trial: TrialRecord, values: Values) -> dict[str, Any]:
    results = [[result.windows_seen, result.objective] for result in trial.results]
    return {"from": f"trial {trial.number} of {name}", "state": trial.state, "values": values, "results": results}


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
        "Chronos-2's default (full)": {**shared, "context_length": longest, "mode": "full"},
    }


def first_points(recipe: Recipe, earlier: Sequence[tuple[str, Values]] = ()) -> tuple[list[dict[str, Any]], list[str]]:
    """The points that a new sweep tries before it draws any, and what there is to say of them.

    Args:
        recipe: Its own points come first, the vendors' defaults last.
        earlier: Points of earlier sweeps that lie in the space, each with where it comes from.
    """
    found = [(f"search.enqueue[{number}]", point.values) for number, point in enumerate(recipe.search.enqueue)]
    found += earlier
    said = []
    if recipe.search.vendor_defaults:
        defaults = vendor_defaults(recipe)
        reasons = {name: outside(values, recipe.search_space) for name, values in defaults.items()}
        found += [(name, values) for name, values in defaults.items() if not reasons[name]]
        strange = [f"{name} with {_told(defaults[name], keys)}" for name, keys in reasons.items() if keys]
        said += [f"left out, outside the search space: {'; '.join(strange)}"] if strange else []
    points = _distinct([(name, searched(values, recipe.search_space)) for name, values in found])
    points_in_all, wanted = size(recipe.search_space), recipe.budget.trials
    if points_in_all and (recipe.search.sampler == "grid" or points_in_all < wanted):
        kind = "grid" if recipe.search.sampler == "grid" else "space"
        said.insert(0, f"a {kind} of {points_in_all} points, of which {min(points_in_all, wanted)} are tried")
    tried = [point["from"] for point in points]
    if len(tried) > recipe.budget.trials:
        said.append(f"left out: {', '.join(tried[recipe.budget.trials :])}: budget.trials is {recipe.budget.trials}")
    tried = tried[: recipe.budget.trials]
    return points, ([f"tried first: {', '.join(tried)}"] if tried else []) + said


def _told(values: Mapping[str, Any], keys: Iterable[str]) -> str:
    return ", ".join(f"{key} {values[key]}" for key in keys)


def within_space(recipe: Recipe, trials: int) -> int:
    """As many trials as there are points to try: none is tried twice."""
    return min(trials, size(recipe.search_space) or trials)


def _distinct(found: list[tuple[str, Values]]) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    for name, values in found:
        if values not in [point["values"] for point in points]:
            points.append({"from": name, "values": dict(values)})
    return points
