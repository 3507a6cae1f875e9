"""Who is compared, and their forecasts: baselines, zero-shot in its settings, and what the sweep has tuned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chronotune import baselines, lstm, trees
from chronotune.config.load import load_model
from chronotune.config.model import Member, ModelPreset
from chronotune.config.recipe import Recipe, stored
from chronotune.config.space import extremes
from chronotune.data.panel import FloatArray, Panel, TrialData, Window
from chronotune.data.prepare import Dataset, scored_windows, training_scales
from chronotune.errors import InputError
from chronotune.metrics import EVALUATION_LEVELS
from chronotune.records import preferred
from chronotune.study import Reading

Predict: TypeAlias = Callable[[ModelPreset, Panel, Sequence[Window], int, Sequence[str]], FloatArray]
"""Quantile forecasts, shape (windows, EVALUATION_LEVELS, horizon), in this process or on a worker: `Worker.predict`."""

BEST, ZERO_SHOT, AVERAGE = "best", "zero-shot", "average"
"""The tuned winner, zero-shot in the setting that validation preferred, and the weight average of the best."""
SAME, BARE = f"{ZERO_SHOT}, same inputs", f"{ZERO_SHOT}, bare"
"""Zero-shot fed as the winner is, and without covariates."""
TREES, LSTM = "boosted trees", "LSTM"


@dataclass(frozen=True)
class Contender:
    """A model and how it is fed."""

    name: str
    preset: ModelPreset
    context_length: int
    covariates: tuple[str, ...]
    covariate_set: str
    """The name of the covariates in the recipe, for display."""

    @property
    def about(self) -> dict[str, Any]:
        """The beginning of its row; a blend's members each have inputs of their own."""
        if self.preset.members:
            return row_of(self.name, None, "", {_part(one): one.weight for one in self.preset.members})
        return row_of(self.name, self.context_length, self.covariate_set)


@dataclass(frozen=True)
class Segment:
    """Windows to forecast, of validation or test, and what baselines may learn from."""

    recipe: Recipe
    panel: Panel
    windows: tuple[Window, ...]
    end: int
    """Position on the time axis before which all targets lie that trees are fitted on."""
    train_end: int
    """Position before which all lie that an LSTM is trained on."""
    validation: tuple[Window, ...]
    """Those that tell an LSTM when to stop."""
    scales: NDArray[np.float64]
    """For each series."""

    @classmethod
    def of_validation(cls, data: TrialData, recipe: Recipe) -> Segment:
        """What trials are scored on; nothing of validation is fitted."""
        end = data.train_end
        return cls(recipe, data.panel, data.validation, end, end, data.validation, data.scales)

    @classmethod
    def of_test(cls, dataset: Dataset, recipe: Recipe, windows: tuple[Window, ...]) -> Segment:
        """The test windows; trees are fitted on training and validation, as a user would who has chosen them."""
        split, scales = dataset.split, training_scales(dataset.panel, dataset.split, recipe)
        validation = scored_windows(
            dataset.panel.until(split.test_start), split.validation_origins, scales, recipe.horizon
        )
        return cls(recipe, dataset.panel, windows, split.test_start, split.train_end, validation, scales)


def row_of(
    model: str, context_length: int | None, covariates: str, members: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """The beginning of a model's row: its inputs, or the weights of what it is a blend of."""
    given = dict(members) if members else None
    return {"model": model, "context_length": context_length, "covariates": covariates, "members": given}


def _part(member: Member) -> str:
    """What a member of a blend is called: by its folder, as the blend was made."""
    return BEST if member.folder == "." else PurePosixPath(member.folder).name


def of_sweep(directory: Path, reading: Reading) -> list[Contender]:
    """Zero-shot in its settings, that which validation preferred first; then the winner, and the average if any.

    The settings: as validation preferred it, fed as the winner is, and without covariates. Equal ones stand once.
    """
    recipe = stored(reading.attributes["recipe"])
    point = reading.trials[reading.attributes["winner"]["number"]].hyperparameters
    assert point is not None
    sets, fed = recipe.data.sets, (point.context_length, point.covariates)
    found: dict[tuple[int, tuple[str, ...]], Contender] = {}
    for name, (context, covariates) in _settings(reading, *fed).items():
        contender = Contender(name, recipe.model, context, sets[covariates], covariates)
        found.setdefault((context, contender.covariates), contender)
    tuned = {BEST: tuned_preset(directory, reading)}
    if (reading.attributes.get("choice") or {}).get("averaged"):
        tuned[AVERAGE] = load_model(average_folder(directory) / "preset.yaml")
    return [
        *found.values(),
        *(Contender(name, preset, fed[0], sets[fed[1]], fed[1]) for name, preset in tuned.items()),
    ]


def _settings(reading: Reading, context: int, covariates: str) -> dict[str, tuple[int, str]]:
    overall = reading.zero_shot
    assert overall is not None
    bare = [one for one in reading.attributes["zero_shot"] if one["covariates"] == "none"]
    best = preferred(bare, reading.attributes["recipe"]["objective"]) or overall
    return {
        ZERO_SHOT: (overall["context_length"], overall["covariates"]),
        SAME: (context, covariates),
        BARE: (best["context_length"], "none"),
    }


def average_folder(directory: Path) -> Path:
    """Where a sweep's weight average is, whether it is exported or not."""
    return directory / "contenders" / AVERAGE


def tuned_folder(directory: Path) -> Path:
    """Where the tuned winner is when something else is exported in its place."""
    return directory / "contenders" / BEST


def tuned_preset(directory: Path, reading: Reading) -> ModelPreset:
    """The tuned winner by itself: what `winner/` holds, unless the weight average is exported."""
    noted = reading.attributes["winner"]
    wanted = noted.get("tuned", noted["sha256"])
    kept = (directory / "winner", tuned_folder(directory))
    presets = (load_model(folder / "preset.yaml") for folder in kept if (folder / "preset.yaml").exists())
    found = next((preset for preset in presets if preset.revision == wanted), None)
    if found is None:
        raise InputError(
            f"{directory}: the winner's weights must have the SHA-256 {wanted}, but they are in none of "
            f"{', '.join(map(str, kept))}. Restore the folder, or run the sweep again"
        )
    return found.model_copy(update={"members": []})


def of_preset(preset: ModelPreset, recipe: Recipe) -> list[Contender]:
    """A model by itself: as it was trained to be fed; or with the longest context, with and without covariates.

    Raises:
        InputError: The recipe does not have its covariates.
    """
    if preset.serving is None:
        longest = min(max(extremes(recipe.search_space.context_length)), preset.max_context_length)
        chosen = {recipe.data.sets[s]: (name, s) for name, s in ((BARE, "none"), (ZERO_SHOT, "all"))}
        return [Contender(name, preset, longest, columns, s) for columns, (name, s) in reversed(chosen.items())]
    serving = preset.serving
    covariates = (*serving.past_only, *serving.known_future)
    if missing := [c for c in covariates if c not in recipe.data.sets["all"]]:
        raise InputError(
            f"{preset.name} was trained with the covariates {', '.join(covariates)}, but the recipe {recipe.name} does "
            f"not declare {', '.join(missing)}. Add them to data.past_only or data.known_future"
        )
    return [Contender(preset.name, preset, serving.context_length, covariates, ", ".join(covariates) or "none")]


def forecasts(
    contenders: Sequence[Contender], segment: Segment, predict: Predict
) -> Iterator[tuple[dict[str, Any], FloatArray]]:
    """The beginning of a row and the forecasts of every baseline of the recipe, then of the contenders."""
    panel, windows = segment.panel, segment.windows
    yield from _baselines(segment)
    for one in contenders:
        yield one.about, predict(one.preset, panel, windows, one.context_length, one.covariates)


def _baselines(segment: Segment) -> Iterator[tuple[dict[str, Any], FloatArray]]:
    recipe, panel, windows = segment.recipe, segment.panel, segment.windows
    horizon, levels = recipe.horizon, EVALUATION_LEVELS
    for season in recipe.data.seasons:
        about = row_of(f"seasonal naive ({season})", season, "none")
        yield about, baselines.seasonal_naive(panel, windows, horizon=horizon, season=season, levels=levels)
    if recipe.evaluation.trees:
        yield row_of(TREES, None, "all"), _trees(segment)
    if recipe.evaluation.lstm:
        yield row_of(LSTM, lstm.context_of(recipe.data.seasons), "all"), _lstm(segment)


def _trees(segment: Segment) -> FloatArray:
    """Their seed is not the recipe's, which in a finalist's export is the repeat's: a baseline is the same in both."""
    return trees.forecast(
        segment.panel,
        segment.windows,
        end=segment.end,
        horizon=segment.recipe.horizon,
        stride=segment.recipe.stride,
        seasons=segment.recipe.data.seasons,
        scales=segment.scales,
        levels=EVALUATION_LEVELS,
    )


def _lstm(segment: Segment) -> FloatArray:
    return lstm.forecast(
        segment.panel,
        segment.windows,
        train_end=segment.train_end,
        validation=segment.validation,
        horizon=segment.recipe.horizon,
        seasons=segment.recipe.data.seasons,
        scales=segment.scales,
        levels=EVALUATION_LEVELS,
    )
