"""Forecasts of a preset, whatever is behind it: one model, or the blend of several members."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chronotune import forecaster
from chronotune.blending import blend
from chronotune.config import load
from chronotune.config.model import Member, ModelPreset
from chronotune.data.panel import Panel, Window
from chronotune.metrics import QUANTILES

if TYPE_CHECKING:
    import torch


def predict(
    preset: ModelPreset,
    panel: Panel,
    windows: Sequence[Window],
    *,
    context_length: int,
    horizon: int,
    covariates: Sequence[str],
    levels: Sequence[float] = QUANTILES,
    device: str | torch.device = "cpu",
) -> forecaster.Forecasts:
    """Quantile forecasts of some windows by the model of a preset, loaded for it.

    Args:
        preset: As `config.load.load_model` reads it.
        panel: As for `forecaster.predict_windows`, with the covariates of all members.
        windows: What to forecast.
        context_length: The longest past that is shown; each member of a blend has its own.
        horizon: Steps to forecast.
        covariates: Names of those to show; each member of a blend has its own.
        levels: Of the quantiles to give.
        device: Where to compute.

    Returns:
        Shape (windows, levels, horizon).

    Raises:
        InputError: A member has no preset.
        ChronotuneError: Weights are missing or damaged, or `context_length` is longer than a model's.
    """

    def alone(one: ModelPreset, context: int, shown: Sequence[str]) -> forecaster.Forecasts:
        model = forecaster.load_model(one).to(device)
        return forecaster.predict_windows(
            model, panel, windows, context_length=context, horizon=horizon, covariates=shown, levels=levels
        )

    if not preset.members:
        return alone(preset, context_length, covariates)
    parts = [alone(preset_of(preset, one), one.context_length, one.covariates) for one in preset.members]
    return np.asarray(blend(parts, [one.weight for one in preset.members]), dtype=np.float32)


def preset_of(preset: ModelPreset, member: Member) -> ModelPreset:
    """The preset of one member of a blend, a model by itself; with the revision that the blend names, if it does.

    Raises:
        InputError: There is none.
    """
    if member.folder == ".":
        return preset.model_copy(update={"members": []})
    found = load.load_model(Path(preset.weights) / member.folder / "preset.yaml")
    return found if member.revision is None else found.model_copy(update={"revision": member.revision})
