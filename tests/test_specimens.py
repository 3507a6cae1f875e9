"""What is kept of forecasts for the report, on forecasts made by hand."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import numpy as np
import pytest

from chronotune.data.panel import FloatArray, Panel, Series, Window
from chronotune.metrics import EVALUATION_LEVELS
from chronotune.scoring import Ruler
from chronotune.specimens import BINS, FAN, Specimens, chosen
from sweep_parts import small_recipe

RNG = np.random.default_rng(5)
HORIZON, WINDOWS = 24, 6


def ruler(series: int = 1) -> Ruler:
    """Six days behind ten of the past, one window a day in each of so many series; the last value is missing."""
    target = RNG.normal(10, 2, 24 * 16)
    target[-1] = np.nan
    panel = Panel(
        datetime(2024, 1, 1),
        timedelta(hours=1),
        "y",
        (),
        (),
        tuple(Series(f"s{n}", 0, target * 10**n, np.zeros((0, len(target)))) for n in range(series)),
        {},
    )
    windows = tuple(Window(n, 240 + 24 * day) for n in range(series) for day in range(WINDOWS))
    actual = np.stack([panel.series[w.series].target[w.origin : w.origin + HORIZON] for w in windows])
    scales = np.array([2.0 * 10**w.series for w in windows])
    return Ruler(small_recipe(), panel, windows, actual.astype(float), scales)


def around(of: Ruler, error: FloatArray, spread: float = 1.0) -> FloatArray:
    """Quantiles around the truth plus an error for each window."""
    centre = np.nan_to_num(of.actual) + error[:, None]
    return centre[:, None] + spread * (np.array(EVALUATION_LEVELS) - 0.5)[None, :, None]


def test_a_fan_shows_the_best_typical_and_worst_window() -> None:
    """With past, truth, the levels of a fan for both, and the loss of each."""
    of = ruler()
    seen = Specimens(of, "best", "zero-shot")
    seen.see("best", around(of, np.array([3.0, 0, 1, 5, 2, 4])))
    seen.see("zero-shot", around(of, np.array([3.0, 1, 1, 1, 2, 4])))
    kept = seen.as_dict()
    roles = {window["role"]: window for window in kept["windows"]}
    assert {role: window["start"] for role, window in roles.items()} == {
        "typical": "2024-01-13T00:00:00",  # two days before the origin of error 2
        "best": "2024-01-10T00:00:00",
        "worst": "2024-01-12T00:00:00",
    }
    best = roles["best"]
    assert len(best["past"]) == 2 * HORIZON
    assert np.shape(best["forecasts"]["best"]) == (len(FAN), HORIZON)
    assert best["actual"] == pytest.approx(of.actual[1], rel=1e-4)
    assert best["loss"]["best"] < best["loss"]["zero-shot"]
    json.dumps(kept, allow_nan=False)


def test_where_tuning_hurt_is_a_window_of_its_own() -> None:
    """Unless it is the worst already; windows with little to compare are shown under no role."""
    ours, theirs = np.array([1.0, 2, 3, 9, 0]), np.array([1.0, 0, 3, 9, 8])
    usable = np.array([True, True, True, True, False])
    assert chosen(ours, theirs, usable) == {"typical": 1, "best": 0, "worst": 3}
    assert chosen(ours, np.array([1.0, 2, 0, 9, 8]), usable)["against"] == 2
    assert chosen(ours, ours, np.zeros(5, dtype=bool)) == {}


def test_calibration_counts_what_is_below() -> None:
    """Of observed values only: a forecast that is always too high by far has all of them below every quantile."""
    of = ruler()
    seen = Specimens(of, "best", "zero-shot")
    seen.see("high", around(of, np.full(WINDOWS, 50.0)))
    seen.see("centred", around(of, np.zeros(WINDOWS)))
    kept = seen.as_dict()
    assert kept["calibration"]["high"] == [1.0] * len(EVALUATION_LEVELS)
    shares = dict(zip(EVALUATION_LEVELS, kept["calibration"]["centred"], strict=True))
    assert shares[0.4] == 0
    assert shares[0.6] == 1
    assert kept["windows"] == []
    assert kept["days"] == {}


def test_residuals_are_in_units_of_the_data_or_of_each_series_scale() -> None:
    """Actual minus median; what lies beyond the bins is counted in the outermost."""
    for series, unit, mean in ((1, "data", -50.0), (2, "scale", -(50 / 2 + 50 / 20) / 2)):
        of = ruler(series)
        seen = Specimens(of, "best", "zero-shot")
        seen.see("high", around(of, np.full(len(of.windows), 50.0)))
        residuals = seen.as_dict()["residuals"]
        assert residuals["unit"] == unit
        assert residuals["models"]["high"]["mean"] == pytest.approx(mean)
        counts = residuals["models"]["high"]["counts"]
        assert len(counts) == BINS
        assert sum(counts) == np.isfinite(of.actual).sum()
        assert series > 1 or counts[0] == sum(counts)


def test_days_hold_the_losses_that_the_verdict_compares() -> None:
    """Summed over series, by the day of the origin."""
    of = ruler(2)
    seen = Specimens(of, "best", "zero-shot")
    forecasts = {"best": around(of, np.ones(12)), "zero-shot": around(of, np.full(12, 2.0))}
    for model, predictions in forecasts.items():
        seen.see(model, predictions)
    days = seen.as_dict()["days"]
    assert days["days"] == [f"2024-01-{day}" for day in range(11, 17)]
    assert days["challenger"] == pytest.approx(of.losses(forecasts["best"]).sum(axis=1), rel=1e-4)
    assert days["zero_shot"] == pytest.approx(of.losses(forecasts["zero-shot"]).sum(axis=1), rel=1e-4)
