"""Boosted trees, the baseline that is hard to beat: direct quantile forecasts from lags, calendar and covariates.

One scikit-learn `HistGradientBoostingRegressor` a quantile serves all horizon steps, the step being one feature.
Whatever a feature reads of target and past-only covariates lies before the origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chronotune.data.panel import FloatArray, Panel, Window
from chronotune.data.windows import taking_part
from chronotune.metrics import QUANTILES

Features = NDArray[np.float32]

RECENT = (1, 2, 3, 4)
"""Lags before the origin whose values are features at every step."""
REPEATS = 4
"""Seasons back from which the value at the same place is a feature, for each season."""
PAIRS = 40_000
"""Pairs of origin and step that one model is fitted on."""
DENSER = 4
"""Origins of the fit for each that will be asked for: a few more times of the day, and more pairs."""
SETTINGS: dict[str, Any] = {
    "learning_rate": 0.06,
    "max_iter": 150,
    "max_leaf_nodes": 31,
    "min_samples_leaf": 40,
    "l2_regularization": 1.0,
    "max_features": 0.5,
    "early_stopping": False,
}


_MONDAY = datetime(1970, 1, 5)


def forecast(
    panel: Panel,
    windows: Sequence[Window],
    *,
    end: int,
    horizon: int,
    stride: int,
    seasons: Sequence[int],
    scales: FloatArray,
    levels: Sequence[float] = QUANTILES,
    seed: int = 0,
) -> FloatArray:
    """Fit on what lies before `end`, then forecast the windows.

    Args:
        panel: Targets before each origin, past-only covariates before it, and known ones up to the horizon are read.
        windows: What to forecast; their origins lie at or behind `end`.
        end: Position on the panel's time axis before which all targets of the fit lie.
        horizon: Steps to forecast.
        stride: Steps between the origins that will be asked for; the fit learns from origins four times as dense.
        seasons: Seasonal periods in steps.
        scales: For each series, what its values are divided by, so that one model serves them all; NaN leaves a series
            out of the fit.
        levels: Of the quantiles to forecast; each costs one model.
        seed: Of the drawing of pairs and of the trees.

    Returns:
        Shape (windows, levels, horizon), ascending in the levels. NaN when there is nothing to fit on.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    data = _Table(panel, horizon, seasons, scales)
    x, y = data.pairs(end, stride, np.random.default_rng(seed))
    result = np.full((len(windows), len(levels), horizon), np.nan)
    if not len(y) or not windows:
        return result
    asked = np.concatenate([data.features(window) for window in windows])
    units = np.array([scales[window.series] for window in windows])[:, None]
    for row, level in enumerate(levels):
        model = HistGradientBoostingRegressor(loss="quantile", quantile=level, random_state=seed, **SETTINGS)
        result[:, row] = model.fit(x, y).predict(asked).reshape(len(windows), horizon) * units
    return np.sort(result, axis=1)


class _Table:
    """Windows of a panel as rows of features, one a horizon step."""

    def __init__(self, panel: Panel, horizon: int, seasons: Sequence[int], scales: FloatArray) -> None:
        self.panel, self.horizon, self.seasons, self.scales = panel, horizon, seasons, scales
        self._scaled = [series.target / scale for series, scale in zip(panel.series, scales, strict=True)]
        ahead = np.arange(horizon)
        repeats = [ahead - season * (ahead // season + back) for season in seasons for back in range(1, REPEATS + 1)]
        self._repeats = np.stack(repeats).reshape(len(seasons), REPEATS, horizon)
        """For each season, repeat and step the position relative to the origin, always negative."""

    def pairs(self, end: int, stride: int, random: np.random.Generator) -> tuple[Features, NDArray[np.float64]]:
        """Features, shape (pairs, features), and scaled targets, at most PAIRS of them drawn at random."""
        origins = range(end - self.horizon, 0, -max(1, stride // DENSER))
        usable = taking_part(self.panel.until(end), origins, self.horizon) & np.isfinite(self.scales)
        found = self._drawn(usable, origins, max(1, 4 * PAIRS // self.horizon), random)
        if not found:
            return np.empty((0, 0), dtype=np.float32), np.empty(0)
        y = np.concatenate([self._target(window) for window in found])
        rows = np.flatnonzero(np.isfinite(y))
        if len(rows) > PAIRS:
            rows = np.sort(random.choice(rows, PAIRS, replace=False))
        return np.concatenate([self.features(window) for window in found])[rows], y[rows]

    def _drawn(
        self, usable: NDArray[np.bool_], origins: Sequence[int], most: int, random: np.random.Generator
    ) -> list[Window]:
        """At most `most` of the usable windows (origins, series), in this order; no others are made."""
        behind = np.cumsum(usable.sum(axis=1))  # windows up to each origin, it included
        count = int(behind[-1]) if len(behind) else 0
        places = np.sort(random.choice(count, most, replace=False)) if count > most else np.arange(count)
        rows, first = np.unique(np.searchsorted(behind, places, side="right"), return_index=True)
        windows: list[Window] = []
        for row, mine in zip(rows.tolist(), np.split(places, first[1:]), strict=False):
            within = mine - (behind[row] - usable[row].sum())
            numbers = np.flatnonzero(usable[row])[within].tolist()
            windows += [Window(n, origins[row] - self.panel.series[n].offset) for n in numbers]
        return windows

    def _target(self, window: Window) -> FloatArray:
        return _at(self._scaled[window.series], window.origin + np.arange(self.horizon))

    def features(self, window: Window) -> Features:
        """Shape (horizon, features); NaN where there is nothing to read."""
        series, past = self.panel.series[window.series], self._scaled[window.series][: window.origin]
        split = len(self.panel.past_only)
        lags = _at(past, window.origin + self._repeats)
        steps = window.origin + np.arange(self.horizon)
        constant = [*_at(past, window.origin - np.array(RECENT)), *self._level(past)]
        constant += [*_at(series.covariates[:split, : window.origin], np.array(window.origin - 1))]
        columns = [
            np.arange(self.horizon),
            *self._calendar(series.offset + steps),
            *np.repeat(np.array(constant)[:, None], self.horizon, axis=1),
            *lags.reshape(-1, self.horizon),
            *_mean(lags.transpose(1, 0, 2)),
            *_at(series.covariates[split:], steps),
            *_at(series.covariates[:, : window.origin], window.origin + self._repeats[0, 0]),
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    def _level(self, past: FloatArray) -> list[FloatArray]:
        """Mean and spread of the last cycle of each season, and the mean of the last quarter of the main one."""
        cycles = [past[-length:] for length in (*self.seasons, max(1, self.seasons[0] // 4))]
        return [value for cycle in cycles for value in (_mean(cycle), _mean(np.abs(cycle - _mean(cycle))))]

    def _calendar(self, positions: NDArray[np.int64]) -> list[FloatArray]:
        """Time of day and day of the week, those that the panel's step does not hide."""
        seconds = self.panel.step.total_seconds() * positions + (self.panel.start - _MONDAY).total_seconds()
        day = 86_400.0
        parts = []
        if self.panel.step < timedelta(days=1):
            parts.append(seconds % day)
        if self.panel.step < timedelta(days=7):
            parts.append(seconds // day % 7)
        return parts


def _at(values: FloatArray, positions: NDArray[np.int64]) -> FloatArray:
    """Values at positions of the last axis, NaN outside of it."""
    length = values.shape[-1]
    inside = (positions >= 0) & (positions < length)
    if not length:
        return np.full((*values.shape[:-1], *positions.shape), np.nan)
    return np.where(inside, values[..., np.clip(positions, 0, length - 1)], np.nan)


def _mean(values: FloatArray) -> FloatArray:
    """Mean over the first axis of what is not missing, NaN where all is, without a warning."""
    there = np.isfinite(values)
    count = there.sum(axis=0)
    return np.where(count > 0, np.where(there, values, 0).sum(axis=0) / np.maximum(count, 1), np.nan)
