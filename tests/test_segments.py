"""Metrics by horizon step and by segment, against the metrics of the same forecasts cut by hand."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from chronotune.data.panel import Panel, Series, Window
from chronotune.metrics import score
from chronotune.segments import by_segment, by_series, by_step, calendar

NAN = float("nan")
RNG = np.random.default_rng(3)
FORECAST = np.sort(RNG.normal(size=(3, 9, 4)), axis=1)
ACTUAL = RNG.normal(size=(3, 4))
ACTUAL[1, 3] = NAN
SCALES = np.array([1.0, 2.0, 4.0])


def panel_of(step: timedelta, *offsets: int, start: datetime = datetime(2024, 1, 5, 22, 30)) -> Panel:
    """Series of 100 steps that begin at these offsets; 2024-01-05 was a Friday."""
    series = tuple(Series(f"s{n}", at, np.zeros(100), np.zeros((0, 100))) for n, at in enumerate(offsets))
    return Panel(start, step, "y", (), (), series, {})


def test_by_step_is_the_score_of_each_column() -> None:
    """With the number of values that are there."""
    table = by_step(FORECAST, ACTUAL, SCALES)
    assert [(row["step"], row["observed"]) for row in table] == [(1, 3), (2, 3), (3, 3), (4, 2)]
    wanted = score(FORECAST[[0, 2], :, 3:], ACTUAL[[0, 2], 3:], SCALES[[0, 2]])
    assert {name: table[3][name] for name in wanted} == pytest.approx(wanted)


def test_by_segment_is_the_score_of_the_labelled_steps() -> None:
    """Windows without such a step, and steps without a label, do not count."""
    labels = np.array([["a", "a", "b", "b"], ["b", "b", "b", "b"], ["a", None, None, None]], dtype=object)
    table = by_segment(FORECAST, ACTUAL, SCALES, labels)
    assert [(row["segment"], row["observed"]) for row in table] == [("a", 3), ("b", 5)]
    errors = np.abs(FORECAST[:, 4] - ACTUAL)
    assert table[0]["mae"] == pytest.approx((errors[0, 0] + errors[0, 1] + errors[2, 0]) / 3)
    assert table[0]["mase"] == pytest.approx(((errors[0, 0] + errors[0, 1]) / 2 + errors[2, 0] / 4) / 2)
    ordered = by_segment(FORECAST, ACTUAL, SCALES, labels, ["c", "b", "a"])
    assert [row["segment"] for row in ordered] == ["b", "a"]


def test_one_segment_of_all_is_the_score() -> None:
    """To the last digit."""
    [row] = by_segment(FORECAST, ACTUAL, SCALES, np.zeros((3, 4), dtype=int))
    wanted = score(FORECAST, ACTUAL, SCALES)
    assert {name: row[name] for name in wanted} == wanted


def test_calendar_labels_are_the_time_of_the_step() -> None:
    """Positions count from the panel's start, whatever the series' own offset: 22:30 on a Friday, then Saturday."""
    panel = panel_of(timedelta(hours=1), 0, 24)
    kinds = calendar(panel, [Window(0, 0), Window(1, 1)], 3)
    assert kinds["hour"][0].tolist() == [[22, 23, 0], [23, 0, 1]]
    assert kinds["weekday"][0].tolist() == [["Friday", "Friday", "Saturday"], ["Saturday", "Sunday", "Sunday"]]
    for row, window in enumerate([Window(0, 50), Window(1, 50)]):
        label = calendar(panel, [window], 1)["weekday"][0][0, 0]
        assert label == panel.time(window.origin + 24 * row).strftime("%A")


@pytest.mark.parametrize(
    ("step", "kinds"),
    [
        (timedelta(minutes=15), {"hour", "weekday"}),
        (timedelta(days=1), {"weekday"}),
        (timedelta(days=7), set()),
    ],
)
def test_calendar_has_only_what_varies(step: timedelta, kinds: set[str]) -> None:
    """Daily data has no hours, weekly data no weekdays."""
    assert calendar(panel_of(step, 0), [Window(0, 3)], 2).keys() == kinds


def test_by_series_is_the_score_of_its_windows() -> None:
    """In the panel's order; a series without a window is left out."""
    table = by_series(FORECAST, ACTUAL, SCALES, np.array([2, 0, 2]), ["a", "b", "c"])
    assert [(row["segment"], row["observed"]) for row in table] == [("a", 3), ("c", 8)]
    wanted = score(FORECAST[[0, 2]], ACTUAL[[0, 2]], SCALES[[0, 2]])
    assert {name: table[1][name] for name in wanted} == wanted
