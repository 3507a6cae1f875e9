"""The final evaluator: the winner and zero-shot on the test windows, which no trial has ever received."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from chronotune import baselines, trees
from chronotune.config.load import load_model
from chronotune.config.model import ModelPreset
from chronotune.config.recipe import Recipe
from chronotune.config.space import extremes
from chronotune.data.panel import FloatArray, Panel, Window
from chronotune.data.prepare import Dataset, load, training_scales, trial_data
from chronotune.errors import InputError
from chronotune.lease import Lease
from chronotune.metrics import EVALUATION_LEVELS, without_nan
from chronotune.scoring import Ruler, merged
from chronotune.study import Reading, Study
from chronotune.trial import Assignment, Worker

Predict: TypeAlias = Callable[[ModelPreset, Panel, Sequence[Window], int, Sequence[str]], FloatArray]
"""Quantile forecasts, shape (windows, EVALUATION_LEVELS, horizon), in this process or on a worker: `Worker.predict`."""


BEST, ZERO_SHOT = "best", "zero-shot"
"""The pair that gets a verdict: the winner, and zero-shot in the setting that validation preferred."""


@dataclass(frozen=True)
class Contender:
    """A model and how it is fed."""

    name: str
    preset: ModelPreset
    context_length: int
    covariates: tuple[str, ...]
    covariate_set: str
    """The name of the covariates in the recipe, for display."""


def evaluate_again(directory: Path) -> dict[str, Any]:
    """Evaluate a finished sweep's winner once more; the opening of the test segment is counted.

    Raises:
        InputError: There is no sweep with a winner, or somebody drives it.
    """
    with Lease(directory):
        study = Study.reopen(directory)
        recipe = Recipe.model_validate(study.attribute("recipe"))
        if study.attribute("winner") is None:
            raise InputError(
                f"{directory}: only a sweep with a winner can be evaluated. "
                f"Finish it with `chronotune resume {directory}`"
            )
        dataset = load(recipe)
        worker = Worker(Assignment(recipe, trial_data(dataset, recipe), directory))
        return evaluate_sweep(directory, study, recipe, dataset, worker.predict)


def evaluate_sweep(directory: Path, study: Study, recipe: Recipe, dataset: Dataset, predict: Predict) -> dict[str, Any]:
    """Open the test segment, and count it, for the winner that the study already names.

    `segments.json` gets the metrics of every contender by horizon step, hour, weekday, series of a panel and column of
    `evaluation.segments`.

    Returns:
        What `evaluation.json` and the study hold: the test windows, the number of openings, a row a contender, the
        verdict on the winner and the setting of zero-shot that validation preferred, and the winner's `sha256`.

    Raises:
        InputError: A column of `evaluation.segments` is not in the data, or has too many values; nothing was opened.
    """
    ruler = Ruler.of_test(dataset, recipe)
    openings = [*(study.attribute("test_openings") or []), datetime.now(UTC).isoformat(timespec="seconds")]
    study.note("test_openings", openings)
    contenders = _of_sweep(directory, study.read(), recipe)
    scored, tables = _score(contenders, dataset, ruler, predict, len(openings))
    evaluation = {**scored, "sha256": contenders[-1].preset.revision}
    for name, content in {"evaluation": evaluation, "segments": tables}.items():
        (directory / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    study.note("evaluation", evaluation)  # last: what is noted is not done again, so the files must be there
    return evaluation


def _of_sweep(directory: Path, reading: Reading, recipe: Recipe) -> list[Contender]:
    """Zero-shot as validation preferred it, zero-shot fed like the winner, and the winner from its exported files."""
    winner = load_model(directory / "winner" / "preset.yaml")
    best = reading.trials[reading.attributes["winner"]["number"]].hyperparameters
    preferred = reading.zero_shot
    assert best is not None
    assert preferred is not None
    settings = {
        ZERO_SHOT: (preferred["context_length"], preferred["covariates"]),
        "zero-shot, same inputs": (best.context_length, best.covariates),
    }
    if len(set(settings.values())) == 1:
        del settings["zero-shot, same inputs"]
    sets = recipe.data.sets
    untouched = [Contender(name, recipe.model, context, sets[s], s) for name, (context, s) in settings.items()]
    return [*untouched, Contender(BEST, winner, best.context_length, sets[best.covariates], best.covariates)]


def _of_preset(preset: ModelPreset, recipe: Recipe) -> list[Contender]:
    if preset.serving is None:
        longest = min(max(extremes(recipe.search_space.context_length)), preset.max_context_length)
        chosen = {recipe.data.sets[s]: s for s in ("all", "none")}
        return [Contender(ZERO_SHOT, preset, longest, columns, s) for columns, s in chosen.items()]
    serving = preset.serving
    covariates = (*serving.past_only, *serving.known_future)
    if missing := [c for c in covariates if c not in recipe.data.sets["all"]]:
        raise InputError(
            f"{preset.name} was trained with the covariates {', '.join(covariates)}, but the recipe {recipe.name} does "
            f"not declare {', '.join(missing)}. Add them to data.past_only or data.known_future"
        )
    return [Contender(preset.name, preset, serving.context_length, covariates, ", ".join(covariates) or "none")]


def _score(
    contenders: Sequence[Contender],
    dataset: Dataset,
    ruler: Ruler,
    predict: Predict,
    openings: int | None = None,
    *,
    tabled: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The evaluation, and the tables by step and segment, empty unless `tabled`; no forecasts are kept."""
    recipe = ruler.recipe
    rows: list[dict[str, Any]] = []
    losses: dict[str, FloatArray] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    for about, predictions in _forecasts(contenders, dataset, ruler.windows, recipe, predict):
        rows.append({**about, **without_nan(ruler.score(predictions))})
        losses[about["model"]] = ruler.losses(predictions)
        if tabled:
            tables = merged(tables, without_nan(ruler.tables(predictions)), about)
    origins = dataset.split.test_origins
    pair = {BEST, ZERO_SHOT} <= losses.keys()
    return {
        "recipe": recipe.name,
        "horizon": recipe.horizon,
        "windows": len(ruler.windows),
        "first_origin": ruler.panel.time(origins[0]).isoformat(),
        "last_origin": ruler.panel.time(origins[-1]).isoformat(),
        "rows": rows,
        "test_openings": openings,
        "verdict": ruler.verdict(BEST, ZERO_SHOT, losses, openings).as_dict() if pair else None,
    }, tables


def _forecasts(
    contenders: Sequence[Contender], dataset: Dataset, windows: Sequence[Window], recipe: Recipe, predict: Predict
) -> Iterator[tuple[dict[str, Any], FloatArray]]:
    panel, horizon, levels = dataset.panel, recipe.horizon, EVALUATION_LEVELS
    for season in recipe.data.seasons:
        about = {"model": f"seasonal naive ({season})", "context_length": season, "covariates": "none"}
        yield about, baselines.seasonal_naive(panel, windows, horizon=horizon, season=season, levels=levels)
    if recipe.evaluation.trees:
        yield {"model": "boosted trees", "context_length": None, "covariates": "all"}, _trees(dataset, windows, recipe)
    for one in contenders:
        about = {"model": one.name, "context_length": one.context_length, "covariates": one.covariate_set}
        yield about, predict(one.preset, panel, windows, one.context_length, one.covariates)


def _trees(dataset: Dataset, windows: Sequence[Window], recipe: Recipe) -> FloatArray:
    """Fitted on training and validation: nothing of the trees is chosen on validation, so a user would use it too.

    Their seed is not the recipe's, which in a finalist's export is the repeat's: a baseline is the same in both.
    """
    return trees.forecast(
        dataset.panel,
        windows,
        end=dataset.split.test_start,
        horizon=recipe.horizon,
        stride=recipe.stride,
        seasons=recipe.data.seasons,
        scales=training_scales(dataset.panel, dataset.split, recipe),
        levels=EVALUATION_LEVELS,
    )
