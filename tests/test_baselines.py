"""The seasonal naive forecast."""

from datetime import datetime, timedelta

import numpy as np

from chronotune.baselines import seasonal_naive
from chronotune.data.panel import Panel, Series, Window

NAN = float("nan")


def panel_of(*targets: list[float]) -> Panel:
    """A panel without covariates."""
    series = tuple(
        Series(str(i), 0, np.array(t, dtype=np.float32), np.zeros((0, len(t)), dtype=np.float32))
        for i, t in enumerate(targets)
    )
    return Panel(datetime(2024, 1, 1), timedelta(hours=1), "y", (), (), series, {})


def points(panel: Panel, *windows: Window, horizon: int, season: int) -> list[list[float]]:
    """The forecast, after checking that all its quantiles are equal."""
    forecast = seasonal_naive(panel, windows, horizon=horizon, season=season)
    assert forecast.shape == (len(windows), 9, horizon)
    assert forecast.dtype == np.float32
    np.testing.assert_array_equal(forecast, np.repeat(forecast[:, :1], 9, axis=1))
    result: list[list[float]] = forecast[:, 0].tolist()
    return result


def test_repeats_the_last_season_before_each_origin() -> None:
    """Horizons longer than a season repeat it; the future is not read."""
    panel = panel_of([0, 1, 2, 3, 4, 5, 6, 7], [9, 8, 7, 6])
    assert points(panel, Window(0, 6), Window(1, 3), horizon=5, season=3) == [[3, 4, 5, 3, 4], [9, 8, 7, 9, 8]]


def test_gaps_are_filled_from_earlier_seasons() -> None:
    """A place missing last time takes the latest season that has it, one never seen the last value."""
    panel = panel_of([1, 2, NAN, 3, NAN, NAN, NAN, 7, NAN])
    assert points(panel, Window(0, 9), horizon=4, season=3) == [[3, 7, 7, 3]]


def test_short_histories() -> None:
    """Less than a season of history: the places never seen take the last value; no history gives NaN."""
    panel = panel_of([4, 5], [NAN, NAN])
    assert points(panel, Window(0, 2), horizon=5, season=4) == [[5, 5, 4, 5, 5]]
    assert np.isnan(points(panel, Window(0, 0), Window(1, 2), horizon=2, season=4)).all()


def test_no_windows() -> None:
    """An empty list of windows gives an empty forecast."""
    assert seasonal_naive(panel_of([1.0]), [], horizon=3, season=2).shape == (0, 9, 3)
