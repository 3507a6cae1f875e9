"""Forecast scores in the units of the data, or scaled by the series' own seasonal error.

SQL, MASE and WQL follow fev-bench (Shchur et al. 2025, arXiv:2509.26468); its package computes the same numbers.
Steps whose actual value is missing are ignored everywhere. A forecast that is not finite where there is an actual
value makes the scores not finite: it is never skipped.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating]

QUANTILES: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Levels of every forecast, in the order of its second axis."""
_MEDIAN = QUANTILES.index(0.5)


def score(predictions: Floats, actual: Floats, scales: Floats) -> dict[str, float]:
    """All metrics of a set of forecasts.

    Args:
        predictions: Shape (windows, 9, horizon), the quantiles `QUANTILES`.
        actual: Shape (windows, horizon), NaN where missing.
        scales: Shape (windows,), the `seasonal_scale` of each window's series.

    Returns:
        `sql`, `wql`, `mase`, `mae`, `rmse`, `r2`, `mape` and `coverage80`. A metric without anything to average is
        NaN: `wql` and `mape` of all-zero actuals, `r2` of constant ones, all of them when no actual is observed.
    """
    predictions, actual, scales = (np.asarray(a, dtype=np.float64) for a in (predictions, actual, scales))
    windows, horizon = actual.shape
    assert predictions.shape == (windows, len(QUANTILES), horizon), predictions.shape
    assert scales.shape == (windows,), scales.shape
    median, losses = predictions[:, _MEDIAN], quantile_losses(predictions, actual)
    errors, observed = actual - median, ~np.isnan(actual)
    return {
        "sql": scaled(losses.mean(axis=1), observed, scales),
        "wql": wql(losses, actual),
        "mase": scaled(np.abs(errors), observed, scales),
        "mae": _mean(np.abs(errors[observed])),
        "rmse": float(np.sqrt(_mean(errors[observed] ** 2))),
        "r2": r2(median, actual),
        "mape": mape(median, actual),
        "coverage80": coverage80(predictions, actual),
    }


def without_nan(value: Any) -> Any:
    """The same JSON value with None for every number that is not finite, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def quantile_losses(predictions: Floats, actual: Floats) -> Floats:
    """Twice the pinball loss: 2 |(y - f_q) (1[y <= f_q] - q)|; at q = 0.5 it is the absolute error.

    Source: Koenker & Bassett 1978; the factor 2 as in fev and GluonTS.

    Returns:
        Shape (windows, 9, horizon), NaN where the actual value is missing.
    """
    levels, values = np.array(QUANTILES)[:, None], actual[:, None, :]
    return np.asarray(2 * np.abs((values - predictions) * ((values <= predictions) - levels)))


def scaled(losses: Floats, observed: NDArray[np.bool_], scales: Floats) -> float:
    """Mean over windows of (mean loss over the observed steps of a window / scale of its series).

    With the quantile losses averaged over levels this is SQL, with absolute errors of the median it is MASE
    (Hyndman & Koehler 2006). The scale comes from the training segment, so that all forecasts share it; fev takes it
    from all the past of each window. Windows without any actual value are skipped.

    Args:
        losses: Shape (windows, horizon).
        observed: Shape (windows, horizon), where there is an actual value.
        scales: Shape (windows,), above 0.
    """
    per_window = [
        _mean(loss[steps]) / scale for loss, steps, scale in zip(losses, observed, scales, strict=True) if steps.any()
    ]
    return _mean(np.array(per_window))


def wql(losses: Floats, actual: Floats) -> float:
    """Weighted quantile loss, pooled: for each level sum(2 pinball) / sum |y| over all windows; mean over levels.

    Pooled, because the average of per-window quotients explodes on windows of almost only zeros.
    """
    observed = ~np.isnan(actual)
    weight = np.abs(actual[observed]).sum()
    return float(losses.mean(axis=1)[observed].sum() / weight) if weight > 0 else float("nan")


def r2(median: Floats, actual: Floats) -> float:
    """Coefficient of determination, pooled: 1 - sum (y - f)^2 / sum (y - mean y)^2 over all observed steps."""
    observed = ~np.isnan(actual)
    values = actual[observed]
    spread = np.sum((values - _mean(values)) ** 2)
    return float(1 - np.sum((values - median[observed]) ** 2) / spread) if spread > 0 else float("nan")


def mape(median: Floats, actual: Floats) -> float:
    """Mean of |y - f| / |y| over the observed steps where y is not 0: zero actuals are skipped, so read it with MAE."""
    usable = ~np.isnan(actual) & (actual != 0)
    return _mean(np.abs(actual - median)[usable] / np.abs(actual[usable]))


def coverage80(predictions: Floats, actual: Floats) -> float:
    """Share of the observed values inside [q10, q90], both included; 0.8 is ideal."""
    inside = (predictions[:, 0] <= actual) & (actual <= predictions[:, -1])
    return _mean(inside[~np.isnan(actual)].astype(np.float64))


def seasonal_scale(target: Floats, season: int) -> float:
    """Mean absolute seasonal difference, mean |y_t - y_(t-season)|: the error of a seasonal naive forecast in sample.

    Source: Hyndman & Koehler 2006, equation for the scaled error. Pairs with a missing value are ignored. When it is
    0 or undefined (a constant or periodic series, one shorter than a season) the first of these that is above 0
    takes its place: mean |y_t - y_(t-1)|, mean |y|, 1.

    Args:
        target: Shape (steps,), NaN where missing: the training segment of one series.
        season: Steps in a season, at least 1.
    """
    values = np.asarray(target, dtype=np.float64)
    level = _mean(np.abs(values[~np.isnan(values)]))
    candidates = (_lag_error(values, season), _lag_error(values, 1), level, 1.0)
    return next(value for value in candidates if value > 0)


def last_value_r2(target: Floats) -> float:
    """R2 of forecasting each value by the one before it: near 1 for series in time order, about -1 when shuffled.

    Args:
        target: Shape (steps,), NaN where missing; pairs with a missing value are ignored.
    """
    values = np.asarray(target, dtype=np.float64)
    before, after = values[:-1], values[1:]
    return r2(before, np.where(np.isnan(before), np.nan, after))


def _lag_error(values: Floats, lag: int) -> float:
    differences = np.abs(values[lag:] - values[:-lag])
    return _mean(differences[~np.isnan(differences)])


def _mean(values: Floats) -> float:
    """The mean, and NaN instead of a warning when there is nothing to average."""
    return float(values.mean()) if values.size else float("nan")
