"""The boosted trees: that they read no future, and that they find what lags, calendar and covariates tell."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from chronotune import trees
from chronotune.baselines import seasonal_naive
from chronotune.data.panel import Panel, Series, Window
from chronotune.data.windows import actuals, taking_part, windows_at

HORIZON, END = 12, 960
WINDOWS = [Window(0, END), Window(1, END - 30), Window(0, END + 24), Window(1, END)]
LEVELS = (0.1, 0.5, 0.9)


def panel_of(seed: int = 0, changed_from: int | None = None) -> Panel:
    """Forty-five days of hours: two series of other sizes, a plan that is known, and a measurement that is not."""
    random, time = np.random.default_rng(seed), np.arange(45 * 24)
    plan = random.integers(0, 2, len(time)).astype(float)
    base = 10 + 4 * np.sin(2 * np.pi * time / 24) + 6 * plan
    values = [base + random.normal(0, 0.5, len(time)), 100 * (base + random.normal(0, 0.5, len(time)))[30:]]
    series = [
        Series("small", 0, values[0], np.stack([values[0] / 2, plan])),
        Series("large", 30, values[1], np.stack([values[1] / 2, plan[30:]])),
    ]
    if changed_from is not None:
        for one in series:
            one.target[changed_from - one.offset :] = -999
            one.covariates[0, changed_from - one.offset :] = -999
    return Panel(datetime(2024, 1, 1), timedelta(hours=1), "load", ("measured",), ("plan",), tuple(series), {})


def forecast(panel: Panel, windows: list[Window] = WINDOWS, **changes: Any) -> Any:
    """Of both series, scaled by their sizes."""
    arguments: dict[str, Any] = {"end": END, "horizon": HORIZON, "stride": 12, "seasons": [24], "levels": LEVELS}
    arguments["scales"] = np.array([1.0, 100.0])
    return trees.forecast(panel, windows, **{**arguments, **changes})


def test_nothing_behind_the_origin_is_read_but_what_is_known() -> None:
    """Other targets and measurements from the end of the fit on change no forecast that begins there."""
    first = [Window(0, END), Window(1, END - 30)]
    np.testing.assert_array_equal(forecast(panel_of(), first), forecast(panel_of(changed_from=END), first))


def test_they_know_the_plan_and_the_day() -> None:
    """Nearly down to the noise, where the seasonal naive forecast errs by the plan; in each series' own units."""
    panel = panel_of()
    windows = [Window(number, origin - 30 * number) for origin in range(END, 1060, 12) for number in (0, 1)]
    truth = actuals(panel, windows, HORIZON)
    units = np.array([[1.0], [100.0]] * (len(windows) // 2))
    ours = np.abs(forecast(panel, windows)[:, 1] - truth) / units
    naive = np.abs(seasonal_naive(panel, windows, horizon=HORIZON, season=24)[:, 4] - truth) / units
    assert ours.mean() < 2 * 0.5 < naive.mean() / 2
    assert ours[::2].mean() == pytest.approx(ours[1::2].mean(), rel=0.5)


def test_quantiles_do_not_cross_and_cover() -> None:
    """Shape (windows, levels, horizon), ascending; outer levels hold more of what comes true than inner ones."""
    panel = panel_of()
    windows = [Window(0, origin) for origin in range(END, 1060, 12)]
    got, truth = forecast(panel, windows, levels=(0.05, 0.25, 0.75, 0.95)), actuals(panel, windows, HORIZON)
    assert got.shape == (len(windows), 4, HORIZON)
    assert (np.diff(got, axis=1) >= 0).all()
    inner = ((got[:, 1] <= truth) & (truth <= got[:, 2])).mean()
    outer = ((got[:, 0] <= truth) & (truth <= got[:, 3])).mean()
    assert 0.2 < inner < 0.6 < outer < 0.98


def test_the_same_seed_gives_the_same_trees() -> None:
    """And another draws other pairs and features."""
    np.testing.assert_array_equal(forecast(panel_of()), forecast(panel_of()))
    assert not np.array_equal(forecast(panel_of()), forecast(panel_of(), seed=1))


def test_the_drawing_of_pairs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the series are."""
    monkeypatch.setattr(trees, "PAIRS", 500)
    table = trees._Table(panel_of(), HORIZON, [24], np.array([1.0, 100.0]))
    x, y = table.pairs(END, 1, np.random.default_rng(0))
    assert x.shape[0] == len(y) == 500
    assert np.isfinite(y).all()


@pytest.mark.parametrize("most", [7, 100, 10_000])
def test_drawn_windows_are_those_of_all(most: int) -> None:
    """Drawn by their numbers, they are what a choice among all windows would have been."""
    panel, origins = panel_of(), range(940, 0, -1)
    table = trees._Table(panel, HORIZON, [24], np.array([1.0, 100.0]))
    every = windows_at(panel, origins, HORIZON)
    got = table._drawn(taking_part(panel, origins, HORIZON), origins, most, np.random.default_rng(3))
    kept = np.arange(len(every))
    if len(every) > most:
        kept = np.sort(np.random.default_rng(3).choice(len(every), most, replace=False))
    assert got == [every[place] for place in kept]
    assert table._drawn(np.zeros((0, 2), dtype=bool), [], most, np.random.default_rng(3)) == []


@pytest.mark.filterwarnings("error")
def test_gaps_and_short_pasts() -> None:
    """Missing values are features too; a series without a scale is left out of the fit."""
    panel = panel_of()
    panel.series[0].target[100:400] = np.nan
    got = forecast(panel, [Window(0, 400), Window(1, 3)], end=390, scales=np.array([np.nan, 100.0]))
    assert np.isnan(got[0]).all()
    assert np.isfinite(got[1]).all()
    assert np.isnan(forecast(panel, end=390, scales=np.array([np.nan, np.nan]))).all()


def test_daily_data_has_no_time_of_day() -> None:
    """Its features are fewer by one; of weekly data by one more."""
    widths = []
    for step in (timedelta(hours=1), timedelta(days=1), timedelta(days=7)):
        panel = panel_of()
        other = Panel(panel.start, step, panel.target, panel.past_only, panel.known_future, panel.series, {})
        widths.append(trees._Table(other, HORIZON, [24], np.ones(2)).features(Window(0, 500)).shape[1])
    assert widths[0] - widths[1] == widths[1] - widths[2] == 1
