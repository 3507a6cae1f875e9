"""Score a model on the validation origins: the ruler of every trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chronotune import forecaster, metrics, noise
from chronotune.config.recipe import Recipe
from chronotune.data.panel import TrialData
from chronotune.data.windows import actuals

if TYPE_CHECKING:
    from chronos.chronos2 import Chronos2Model


def validate(
    model: Chronos2Model, recipe: Recipe, data: TrialData, context_length: int, covariates: str
) -> tuple[dict[str, float], str]:
    """Validation metrics in original units, and the losses by origin that they rest on, as `noise.packed` has them."""
    predictions = forecaster.predict_windows(
        model,
        data.panel,
        data.validation,
        context_length=context_length,
        horizon=data.horizon,
        covariates=recipe.data.sets[covariates],
    )
    truth = actuals(data.panel, data.validation, data.horizon), data.scales[[w.series for w in data.validation]]
    losses = metrics.additive_losses(predictions, *truth, recipe.objective)
    origins = [window.origin + data.panel.series[window.series].offset for window in data.validation]
    return metrics.score(predictions, *truth), noise.packed(noise.by_origin(losses, origins))
