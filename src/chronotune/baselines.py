"""Forecasts without learning, the floors that a model has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chronotune.data.panel import FloatArray, Panel, Window
from chronotune.metrics import QUANTILES


def seasonal_naive(
    panel: Panel, windows: Sequence[Window], *, horizon: int, season: int, levels: Sequence[float] = QUANTILES
) -> NDArray[np.float32]:
    """Repeat the last season before each origin, as a point forecast: all quantiles are equal.

    A step whose place in the season was missing last time takes the latest season that has it; a place that was
    never observed takes the last observed value; without any history the forecast is NaN.

    Args:
        panel: Only the targets before each origin are read.
        windows: What to forecast.
        horizon: Steps to forecast.
        season: Steps in a season, at least 1.
        levels: Of the quantiles to give.

    Returns:
        Shape (windows, levels, horizon).
    """
    points = [repeat_season(panel.series[w.series].target[: w.origin], horizon, season) for w in windows]
    stacked = np.array(points, dtype=np.float32).reshape(len(windows), 1, horizon)
    return np.repeat(stacked, len(levels), axis=1)


def repeat_season(history: FloatArray, horizon: int, season: int) -> FloatArray:
    """The last season of `history`, its gaps filled from earlier ones, repeated over `horizon` steps."""
    observed = history[~np.isnan(history)]
    pattern = np.full(season, observed[-1] if observed.size else np.nan)
    unfilled = np.ones(season, dtype=bool)
    for end in range(len(history), 0, -season):
        block = history[max(0, end - season) : end]
        block = np.concatenate([np.full(season - len(block), np.nan), block])
        fresh = unfilled & ~np.isnan(block)
        pattern[fresh] = block[fresh]
        unfilled &= ~fresh
        if not unfilled.any():
            break
    return np.resize(pattern, horizon)
