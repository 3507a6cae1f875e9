"""Forecast scores in the units of the data, or scaled by the series' own seasonal error.

SQL, MASE, WQL, WAPE, MAE, RMSE and MAPE follow fev-bench (Shchur et al. 2025, arXiv:2509.26468): where no actual value
is missing, its package computes the same numbers.
Steps whose actual value is missing are ignored everywhere. A forecast that is not finite where there is an actual
value makes the scores not finite: it is never skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating]

QUANTILES: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Levels that SQL and WQL average over; the second axis of a forecast, in this order, unless levels are named."""
INTERVALS: dict[int, tuple[float, float]] = {50: (0.25, 0.75), 80: (0.1, 0.9), 90: (0.05, 0.95)}
"""For each central interval, in percent, the levels of its ends."""
EVALUATION_LEVELS: tuple[float, ...] = tuple(
    sorted({*QUANTILES, *(end for ends in INTERVALS.values() for end in ends)})
)
"""Levels of the final evaluation's forecasts: those of QUANTILES, and the ends of all INTERVALS."""


def score(predictions: Floats, actual: Floats, scales: Floats, levels: Sequence[float] = QUANTILES) -> dict[str, float]:
    """All metrics of a set of forecasts.

    Args:
        predictions: Shape (windows, levels, horizon).
        actual: Shape (windows, horizon), NaN where missing.
        scales: Shape (windows,), the `seasonal_scale` of each window's series.
        levels: Of the quantiles in `predictions`; at least QUANTILES, over which alone SQL and WQL average.

    Returns:
        `sql`, `wql`, `mase`, `mae`, `rmse`, `r2`, `mape`, `wape` and, for each of the INTERVALS whose ends are among
        the levels, `coverage50`, `coverage80`, `coverage90`. A metric without anything to average is NaN: `wql`,
        `wape` and `mape` of all-zero actuals, `r2` of constant ones, all of them when no actual is observed.
    """
    predictions, actual, scales = (np.asarray(a, dtype=np.float64) for a in (predictions, actual, scales))
    windows, horizon = actual.shape
    assert predictions.shape == (windows, len(levels), horizon), predictions.shape
    assert scales.shape == (windows,), scales.shape
    place = {level: row for row, level in enumerate(levels)}
    median = predictions[:, place[0.5]]
    losses = quantile_losses(predictions[:, [place[level] for level in QUANTILES]], actual)
    errors, observed = actual - median, ~np.isnan(actual)
    return {
        "sql": scaled(losses.mean(axis=1), observed, scales),
        "wql": wql(losses, actual),
        "mase": scaled(np.abs(errors), observed, scales),
        "mae": _mean(np.abs(errors[observed])),
        "rmse": float(np.sqrt(_mean(errors[observed] ** 2))),
        "r2": r2(median, actual),
        "mape": mape(median, actual),
        "wape": wape(median, actual),
        **{
            f"coverage{percent}": coverage(predictions[:, place[low]], predictions[:, place[high]], actual)
            for percent, (low, high) in INTERVALS.items()
            if low in place and high in place
        },
    }


def additive_losses(
    predictions: Floats, actual: Floats, scales: Floats, objective: str, levels: Sequence[float] = QUANTILES
) -> Floats:
    """For each window a loss whose sum over windows, of two forecasts, has the ratio of their objectives.

    For two forecasts of the same windows, sum(one) / sum(other) is the ratio of their SQL, WQL, MASE or MAE as `score`
    has them; for RMSE it is the square of the ratio. What the sums leave out (the weight of WQL, the number of windows
    or steps) is the same for both.

    Args:
        predictions: As for `score`.
        actual: As for `score`.
        scales: As for `score`.
        objective: One of `sql`, `wql`, `mase`, `mae` and `rmse`.
        levels: As for `score`.

    Returns:
        Shape (windows,); 0 for a window without any actual value, not finite where the forecast is not.
    """
    predictions, actual, scales = (np.asarray(a, dtype=np.float64) for a in (predictions, actual, scales))
    errors, observed = actual - predictions[:, list(levels).index(0.5)], ~np.isnan(actual)
    if objective in ("sql", "wql"):
        losses = quantile_losses(predictions[:, [list(levels).index(q) for q in QUANTILES]], actual).mean(axis=1)
    else:
        losses = errors**2 if objective == "rmse" else np.abs(errors)
    sums = np.where(observed, losses, 0).sum(axis=1)
    if objective in ("sql", "mase"):
        sums = sums / (scales * np.maximum(observed.sum(axis=1), 1))
    return np.asarray(sums)


def without_nan(value: Any) -> Any:
    """The same JSON value with None for every number that is not finite, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
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
    steps = observed.sum(axis=1)
    used = steps > 0
    sums = np.where(observed, losses, 0).sum(axis=1)
    return _mean(sums[used] / steps[used] / scales[used])


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


def wape(median: Floats, actual: Floats) -> float:
    """Weighted absolute percentage error, pooled: sum |y - f| / sum |y| over the observed steps of all windows.

    Source: Kolassa & Schuetz 2007 (there the MAD/mean ratio).
    """
    observed = ~np.isnan(actual)
    weight = np.abs(actual[observed]).sum()
    return float(np.abs(actual - median)[observed].sum() / weight) if weight > 0 else float("nan")


def coverage(low: Floats, high: Floats, actual: Floats) -> float:
    """Share of the observed values inside [low, high], both included; of an 80% interval, 0.8 is ideal.

    Source: Christoffersen 1998, the unconditional coverage of an interval forecast.

    Args:
        low: Shape (windows, horizon), the interval's lower end.
        high: Shape (windows, horizon), its upper end.
        actual: Shape (windows, horizon), NaN where missing.
    """
    inside = (low <= actual) & (actual <= high)
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
