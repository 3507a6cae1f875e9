"""Evaluate a model by itself on the test windows of a recipe, beside baselines and, if wanted, another model."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chronotune.blending import composition
from chronotune.config.load import load_model, load_recipe
from chronotune.config.model import ModelPreset
from chronotune.config.recipe import DataConfig, Recipe, without_segments
from chronotune.config.space import extremes
from chronotune.contenders import ZERO_SHOT, Contender, Predict, Segment, forecasts, of_preset
from chronotune.data.panel import FloatArray, TrialData
from chronotune.data.prepare import Dataset, load, trial_data
from chronotune.errors import ChronotuneError, Fault, InputError
from chronotune.evaluation import evaluate_again, opened, refuse_unchosen, target_of
from chronotune.export import REFITTED
from chronotune.identity import trusting
from chronotune.lease import Lease
from chronotune.metrics import without_nan
from chronotune.openings import Openings, count_beside, is_counted_beside
from chronotune.scoring import Ruler
from chronotune.study import Study, is_sweep
from chronotune.trial import Assignment, Worker

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger("chronotune.standalone")


def evaluate(
    model_or_sweep: str | Path,
    recipe: Recipe | None = None,
    *,
    max_windows: int | None = None,
    against: str | Path | None = None,
) -> pl.DataFrame:
    """Score a model, or a sweep's winner again, beside the baselines on a recipe's test windows.

    Args:
        model_or_sweep: A sweep's folder, whose openings of the test segment are counted; or a preset's name or file.
            A model that `export` wrote is fed as it was trained; another with the longest context length of the
            recipe's space, once with all covariates and once without any.
        recipe: Names the data, the split and the horizon; by default that of the sweep, or the one that was exported
            with the model.
        max_windows: Of a model: score at most so many test windows, at even distances.
        against: Of a model: another one, or `zero-shot` for the recipe's own, scored on the same windows. One that
            has a choice of inputs is fed those that do best on validation.

    Returns:
        One row a contender: `model`, `context_length`, `covariates`, and the metrics of `metrics.score`, null where
        there is nothing to average; of a sweep also what `evaluation.evaluate_sweep` tells of each.

    Raises:
        InputError: A sweep is given another recipe than its own, the model needs covariates that the recipe does not
            have, there is no recipe, or a model is compared with itself.
    """
    import polars as pl

    rows = evaluation_of(model_or_sweep, recipe, max_windows=max_windows, against=against)["rows"]
    return pl.DataFrame([{**row, "members": composition(row.get("members") or {}) or None} for row in rows])


def evaluation_of(
    target: str | Path,
    recipe: str | Path | Recipe | None = None,
    overrides: Sequence[str] = (),
    *,
    max_windows: int | None = None,
    against: str | Path | None = None,
) -> dict[str, Any]:
    """Evaluate a sweep again, or a model on a recipe: what `evaluate` and the command of that name do.

    A sweep's report.html is written anew.

    Returns:
        What `evaluation.evaluate_sweep` returns, the verdict on the model when it is compared with another.

    Raises:
        InputError: As `evaluate`.
    """
    if not is_sweep(Path(target)):
        return evaluate_model(target, recipe, overrides, max_windows=max_windows, against=against)
    if recipe is not None or overrides or max_windows or against:
        raise InputError(
            f"{target}: a sweep is evaluated on its own recipe and all test windows against zero-shot, but something "
            f"else is asked for. Leave it out, or evaluate the model: {Path(target) / 'winner'}"
        )
    evaluation = evaluate_again(Path(target))
    _report(Path(target))
    return evaluation


def _report(directory: Path) -> None:
    """Let report.html show it; that it cannot be written takes nothing from the evaluation."""
    from chronotune.page import write_report

    try:
        write_report(directory)
    except Exception as error:
        log.warning("report.html was not written: %r. Try `chronotune report %s`", error, directory)


def evaluate_model(
    model: str | Path,
    recipe: str | Path | Recipe | None,
    overrides: Sequence[str] = (),
    *,
    max_windows: int | None = None,
    against: str | Path | None = None,
) -> dict[str, Any]:
    """Evaluate a model on a recipe, or on the one that was exported with it.

    Where a model, or the one that it is compared with, is the winner of a sweep that is still there, in `sweeps/` or
    around it, and the recipe has the sweep's data, the sweep counts this opening of its test segment. Else `sweeps/`
    does, if sweeps there have opened the same values.

    Raises:
        InputError: There is no recipe, it does not fit the model, `against` is the model itself, or one of the two was
            trained or chosen on the test windows. A model that is scored alone is warned of instead.
    """
    preset = load_model(model)
    own = Path(preset.weights) / "recipe.yaml"
    if recipe is None and not own.exists():
        raise InputError(
            f"{preset.name}: a model that was not exported by chronotune has no recipe of its own. "
            f"Name one: chronotune evaluate {preset.name} tuning/quickstart.yaml"
        )
    asked = recipe if isinstance(recipe, Recipe) else load_recipe(recipe or own, overrides)
    loaded = without_segments(asked if recipe else trusting(asked))
    other = _other(against, preset, loaded) if against is not None else None
    dataset = load(loaded)
    _refuse_known(list(filter(None, (preset, other))), loaded, dataset, judged=other is not None)
    data = trial_data(dataset, loaded)
    predict = Worker(Assignment(loaded, data, Path())).predict
    contenders = of_preset(preset, loaded)
    if other is not None:
        challenger = _named(best_on_validation(contenders, data, loaded, predict), preset.name)
        name = ZERO_SHOT if str(against) == ZERO_SHOT else other.name
        ways = _settings(other, loaded, challenger)
        contenders = [_named(best_on_validation(ways, data, loaded, predict), name), challenger]
    ruler = thinned(Ruler.of_test(dataset, loaded), max_windows)
    openings = _counted([preset, *([other] if other else [])], dataset)
    return _scored(contenders, dataset, ruler, predict, openings, judged=other is not None)


def _other(against: str | Path, preset: ModelPreset, recipe: Recipe) -> ModelPreset:
    other = recipe.model if str(against) == ZERO_SHOT else load_model(against)
    if (other.weights, other.revision) == (preset.weights, preset.revision) or other.name == preset.name:
        rule = f"must be another model than {preset.name}, but is {other.name} of {other.weights}"
        raise InputError([Fault("--against", "", rule, "Name another one, or leave it out")])
    return other


def _refuse_known(presets: Sequence[ModelPreset], recipe: Recipe, dataset: Dataset, *, judged: bool) -> None:
    """Judge no model on windows that it was trained or chosen on; scored alone, it is only told."""
    begins = dataset.panel.time(dataset.split.test_start)
    for preset in presets:
        own = _own_test_start(preset, recipe, dataset)
        if own is None or begins.replace(tzinfo=None) >= own.replace(tzinfo=None):
            continue
        rule = (
            f"{preset.name}: test windows must be new to a model, but they begin at {begins}, and up to {own} it was "
            f"trained and chosen on the same data"
        )
        if judged:
            raise InputError(f"{rule}. Leave --set and the recipe out, or choose a smaller split.test")
        log.warning("%s: its scores are too good", rule)


def _own_test_start(preset: ModelPreset, recipe: Recipe, dataset: Dataset) -> datetime | None:
    """Where the test segment of the recipe that made a model begins; None when that was of other data, or is unknown.

    Whether its known-future columns are to be trusted has nothing to do with it.
    """
    file = Path(preset.weights) / "recipe.yaml"
    if not file.exists():
        return None
    try:
        own = without_segments(load_recipe(file))
        if _place(own.data) != _place(recipe.data):
            return None
        if (own.data, own.split, own.stride) == (recipe.data, recipe.split, recipe.stride):
            return dataset.panel.time(dataset.split.test_start)
        trusting = own.data.model_copy(update={"trust_known_future": own.data.known_future})
        made = load(own.model_copy(update={"data": trusting}))
    except ChronotuneError as error:
        log.warning("%s: not known whether it was trained on the test windows: %s", preset.name, error)
        return None
    return made.panel.time(made.split.test_start)


def _place(data: DataConfig) -> tuple[str, Path | None, str]:
    return data.source, Path(data.path).expanduser().resolve() if data.path else None, data.target


def _named(contender: Contender, name: str) -> Contender:
    return replace(contender, name=name)


def _settings(preset: ModelPreset, recipe: Recipe, challenger: Contender) -> list[Contender]:
    """How a model may be fed: a tuned one as it was trained; another in its own ways, and like the challenger."""
    if preset.serving is not None:
        return of_preset(preset, recipe)
    longest = max(extremes(recipe.search_space.context_length))
    contexts = {min(context, preset.max_context_length) for context in (longest, challenger.context_length)}
    sets = {columns: name for name, columns in recipe.data.sets.items() if name in ("all", "none")}
    sets.setdefault(challenger.covariates, challenger.covariate_set)
    return [
        Contender(preset.name, preset, context, columns, name)
        for context in sorted(contexts)
        for columns, name in sets.items()
    ]


def best_on_validation(contenders: Sequence[Contender], data: TrialData, recipe: Recipe, predict: Predict) -> Contender:
    """The contender with the lowest objective on the validation windows, one that is no number being the highest.

    Nothing is computed for a single one.
    """
    if len(contenders) == 1:
        return contenders[0]
    ruler = Ruler.of_validation(data, recipe)

    def score(one: Contender) -> float:
        predictions = predict(one.preset, data.panel, ruler.windows, one.context_length, one.covariates)
        found = ruler.score(predictions)[recipe.objective]
        return found if math.isfinite(found) else math.inf  # min() would keep a NaN that comes first

    return min(contenders, key=score)


def thinned(ruler: Ruler, most: int | None) -> Ruler:
    """The same ruler with at most so many of its windows, at even distances, the first and the last among them."""
    count = len(ruler.windows)
    if most is None or most >= count:
        return ruler
    kept = np.linspace(0, count - 1, most).round().astype(int) if most > 1 else np.array([count - 1])
    return replace(
        ruler,
        windows=tuple(ruler.windows[row] for row in kept),
        actual=ruler.actual[kept],
        scales=ruler.scales[kept],
        columns={name: labels[kept] for name, labels in ruler.columns.items()},
    )


def _counted(presets: Sequence[ModelPreset], dataset: Dataset) -> Openings | None:
    """Note the opening in the sweeps that these models won, if they are there; that of the most opened of them.

    Where there is none, `sweeps/` counts it if sweeps there have opened the same values; else nobody does.
    """
    sweeps = {sweep.resolve() for preset in presets if (sweep := _sweep_of(preset)) is not None}
    counts = [count for sweep in sorted(sweeps) if (count := _noted(sweep, dataset)) is not None]
    if counts:
        return max(counts, key=lambda count: (count.own or 0, count.here or 0))
    place, target = Path("sweeps"), target_of(dataset)
    if not is_counted_beside(place, target):
        return None
    now = datetime.now(UTC).isoformat(timespec="seconds")
    here = count_beside(place, target, f"model.{uuid.uuid4().hex[:12]}", [now])
    return None if here is None else Openings(None, here)


def _noted(sweep: Path, dataset: Dataset) -> Openings | None:
    """How often a sweep's test segment has been opened, now once more; None when its data are others."""
    with Lease(sweep):
        study = Study.reopen(sweep)
        if (study.attribute("identity") or {}).get("data") != dataset.fingerprint[:16]:
            return None
        refuse_unchosen(sweep, study)
        return opened(sweep, study, dataset)


def _sweep_of(preset: ModelPreset) -> Path | None:
    """The sweep whose winner, or its refit, has these weights."""
    if preset.revision is None or preset.provenance is None:
        return None
    places = (sorted(Path("sweeps").glob(f"*/{name}")) for name in ("winner", REFITTED))
    folders = [Path(preset.weights), *chain.from_iterable(places)]
    won = (folder for folder in folders if (folder / "preset.yaml").exists() and is_sweep(folder.parent))
    return next((folder.parent for folder in won if _revision(folder / "preset.yaml") == preset.revision), None)


def _revision(preset: Path) -> str | None:
    """Of a winner's weights; None when its preset cannot be read, which is no fault of the model that is evaluated."""
    try:
        return load_model(preset).revision
    except ChronotuneError as error:
        log.warning("not known whether the model is this sweep's winner: %s", error)
        return None


def _scored(
    contenders: Sequence[Contender],
    dataset: Dataset,
    ruler: Ruler,
    predict: Predict,
    openings: Openings | None,
    *,
    judged: bool,
) -> dict[str, Any]:
    """Rows of the baselines and the contenders; when `judged`, the verdict on the last beside the one before."""
    rows: list[dict[str, Any]] = []
    losses: dict[str, FloatArray] = {}
    for about, predictions in forecasts(contenders, Segment.of_test(dataset, ruler.recipe, ruler.windows), predict):
        rows.append({**about, **without_nan(ruler.score(predictions))})
        losses[about["model"]] = ruler.losses(predictions)
    verdict = ruler.verdict(contenders[-1].name, contenders[-2].name, losses, openings) if judged else None
    return {
        **ruler.about,
        "rows": rows,
        **(openings or Openings()).as_dict(),
        "verdict": verdict.as_dict() if verdict else None,
    }
