"""Forecast windows: which origins each series takes part in, and what the model sees there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from chronotune.data.panel import FloatArray, Panel, Series, Window


def windows_at(panel: Panel, origins: Iterable[int], horizon: int) -> tuple[Window, ...]:
    """The windows of all series at these positions of the panel's time axis, by origin, then by series.

    A series takes part where it has at least one value before the origin and at least one within the horizon,
    whatever the context length of a trial, so that all trials are scored on the same windows.
    """
    asked = list(origins)
    found = np.argwhere(taking_part(panel, asked, horizon)).tolist()
    return tuple(Window(number, asked[row] - panel.series[number].offset) for row, number in found)


def taking_part(panel: Panel, origins: Sequence[int], horizon: int) -> NDArray[np.bool_]:
    """Which series take part at which origins, as `windows_at` has it: shape (origins, series), a byte for each."""
    asked = np.array(origins, dtype=np.int64)
    result = np.zeros((len(asked), len(panel.series)), dtype=np.bool_)
    for number, series in enumerate(panel.series):
        result[:, number] = _takes_part(np.isfinite(series.target), asked - series.offset, horizon)
    return result


def _takes_part(has_value: NDArray[np.bool_], origins: NDArray[np.int64], horizon: int) -> NDArray[np.bool_]:
    length = len(has_value)
    before = np.concatenate(([0], np.cumsum(has_value)))  # values before each position
    inside = np.clip(origins, 0, length)
    ahead = before[np.minimum(inside + horizon, length)] - before[inside]
    return np.asarray((origins > 0) & (origins < length) & (before[inside] > 0) & (ahead > 0))


def cut(panel: Panel, window: Window, context_length: int, horizon: int) -> tuple[FloatArray, FloatArray]:
    """What the model is given for one window; the work depends on the context, not on the length of the history.

    Returns:
        The context, shape (1 + covariates, up to `context_length`), target first, shorter when the history is;
        and the future of the known covariates, shape (known, horizon), NaN beyond the end of the series.
        Without covariates the context is a view of the series: do not write into it.
    """
    series = panel.series[window.series]
    past = slice(max(0, window.origin - context_length), window.origin)
    context: FloatArray = series.target[None, past]
    if panel.covariates:
        context = np.concatenate((context, series.covariates[:, past]))
    return context, _future_known(series, len(panel.past_only), window.origin, horizon)


def _future_known(series: Series, first: int, origin: int, horizon: int) -> FloatArray:
    known: FloatArray = series.covariates[first:, origin : origin + horizon]
    if (short := horizon - known.shape[1]) <= 0:
        return known
    return np.pad(known, ((0, 0), (0, short)), constant_values=np.nan)


def actuals(panel: Panel, windows: Sequence[Window], horizon: int) -> NDArray[np.float64]:
    """What came true: shape (windows, horizon), in original units, NaN where missing or beyond the series."""
    result = np.full((len(windows), horizon), np.nan)
    for row, window in enumerate(windows):
        values = panel.series[window.series].target[window.origin : window.origin + horizon]
        result[row, : len(values)] = values
    return result
