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
    values = [np.isfinite(series.target) for series in panel.series]
    return tuple(
        Window(number, origin - series.offset)
        for origin in origins
        for number, series in enumerate(panel.series)
        if _takes_part(values[number], origin - series.offset, horizon)
    )


def _takes_part(has_value: NDArray[np.bool_], origin: int, horizon: int) -> bool:
    if not 0 < origin < len(has_value):
        return False
    return bool(has_value[origin : origin + horizon].any() and has_value[:origin].any())


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
