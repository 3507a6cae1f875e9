"""Where a forecast is good and where it is not: its metrics by horizon step and by segment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chronotune.data.panel import Panel, Window
from chronotune.metrics import QUANTILES, Floats, score

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def by_step(
    predictions: Floats, actual: Floats, scales: Floats, levels: Sequence[float] = QUANTILES
) -> list[dict[str, Any]]:
    """All metrics of each horizon step.

    Args:
        predictions: Shape (windows, levels, horizon).
        actual: Shape (windows, horizon), NaN where missing.
        scales: Shape (windows,), as for `metrics.score`.
        levels: Of the quantiles.

    Returns:
        A row a step: `step` from 1, `observed` (actual values), and what `metrics.score` returns.
    """
    return [
        {
            "step": step + 1,
            "observed": int(np.isfinite(actual[:, step]).sum()),
            **score(predictions[:, :, [step]], actual[:, [step]], scales, levels),
        }
        for step in range(actual.shape[1])
    ]


def by_segment(
    predictions: Floats,
    actual: Floats,
    scales: Floats,
    labels: NDArray[Any],
    order: Iterable[Any] | None = None,
    levels: Sequence[float] = QUANTILES,
) -> list[dict[str, Any]]:
    """All metrics of the steps with each label; a window takes part with its steps of that label.

    Args:
        predictions: Shape (windows, levels, horizon).
        actual: Shape (windows, horizon), NaN where missing.
        scales: Shape (windows,), as for `metrics.score`.
        labels: Shape (windows, horizon); steps labelled None belong to no segment.
        order: Labels in the order of the table, those that do not occur are left out; by default sorted.
        levels: Of the quantiles.

    Returns:
        A row a label: `segment`, `observed` (actual values), and what `metrics.score` returns.
    """
    present = {label for label in labels.ravel().tolist() if label is not None}
    rows = []
    for label in sorted(present) if order is None else [label for label in order if label in present]:
        mine = labels == label
        used = mine.any(axis=1)
        masked = np.where(mine[used], actual[used], np.nan)
        about = {"segment": label, "observed": int(np.isfinite(masked).sum())}
        rows.append({**about, **score(predictions[used], masked, scales[used], levels)})
    return rows


def calendar(panel: Panel, windows: Sequence[Window], horizon: int) -> dict[str, tuple[NDArray[Any], Iterable[Any]]]:
    """Labels by the time of each forecast step, and their order: `hour` (0 to 23) and `weekday` (their names).

    `hour` is left out when the panel's step is a day or longer, `weekday` when it is a week or longer.
    """
    kinds: dict[str, tuple[NDArray[Any], Iterable[Any]]] = {}
    minutes = _minutes(panel, windows, horizon)
    if panel.step < timedelta(days=1):
        kinds["hour"] = minutes // 60 % 24, range(24)
    if panel.step < timedelta(days=7):
        # 1970-01-01 was a Thursday
        kinds["weekday"] = np.array(WEEKDAYS, dtype=object)[(minutes // (24 * 60) + 3) % 7], WEEKDAYS
    return kinds


def _minutes(panel: Panel, windows: Sequence[Window], horizon: int) -> NDArray[np.int64]:
    """Minutes since 1970 of each window's steps, shape (windows, horizon)."""
    origins = np.array([panel.series[w.series].offset + w.origin for w in windows], dtype=np.int64).reshape(-1, 1)
    steps = (origins + np.arange(horizon)) * np.timedelta64(panel.step, "us")
    return np.asarray((np.datetime64(panel.start, "us") + steps).astype("datetime64[m]").astype(np.int64))


def by_series(
    predictions: Floats,
    actual: Floats,
    scales: Floats,
    series: NDArray[np.int64],
    names: Sequence[str],
    levels: Sequence[float] = QUANTILES,
) -> list[dict[str, Any]]:
    """All metrics of each series of a panel.

    Args:
        predictions: Shape (windows, levels, horizon).
        actual: Shape (windows, horizon), NaN where missing.
        scales: Shape (windows,), as for `metrics.score`.
        series: Shape (windows,), the number of each window's series.
        names: Of all series, by number.
        levels: Of the quantiles.

    Returns:
        As `by_segment`, for each series that has a window, in the order of the panel.
    """
    rows = []
    for number in np.unique(series):
        mine = np.flatnonzero(series == number)
        about = {"segment": names[number], "observed": int(np.isfinite(actual[mine]).sum())}
        rows.append({**about, **score(predictions[mine], actual[mine], scales[mine], levels)})
    return rows
