"""Which windows there are, and what they hold."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from chronotune.data.panel import Panel, Series, Window
from chronotune.data.windows import actuals, cut, windows_at

NAN = np.nan


def series(name: str, offset: int, *rows: list[float]) -> Series:
    """A series from its rows: target, then covariates."""
    matrix = np.array(rows, dtype=np.float32)
    return Series(name, offset, matrix[0], matrix[1:])


def panel(*parts: Series, past: int = 0, known: int = 0) -> Panel:
    """A panel of hourly series with covariates p0, p1, ..., k0, k1, ..."""
    names = tuple(f"p{i}" for i in range(past)), tuple(f"k{i}" for i in range(known))
    return Panel(datetime(2024, 1, 1), timedelta(hours=1), "y", *names, parts, {})


STEPS = [[float(10 * row + step) for step in range(8)] for row in range(4)]
ONE = panel(series("a", 0, *STEPS), past=1, known=2)


def test_context_and_known_future() -> None:
    """Rows are target, past-only, known; the future holds the known rows alone."""
    context, future = cut(ONE, Window(0, 5), 3, 2)
    np.testing.assert_array_equal(context, [[2, 3, 4], [12, 13, 14], [22, 23, 24], [32, 33, 34]])
    np.testing.assert_array_equal(future, [[25, 26], [35, 36]])


def test_short_history_is_not_padded() -> None:
    """The context is as long as the history when that is shorter."""
    context, _ = cut(ONE, Window(0, 2), 100, 2)
    assert context.shape == (4, 2)


@pytest.mark.parametrize(("origin", "missing"), [(7, 1), (8, 2)])
def test_future_beyond_the_series_is_missing(origin: int, missing: int) -> None:
    """What the file does not hold is NaN, also for a forecast of what comes after its end."""
    context, future = cut(ONE, Window(0, origin), 3, 2)
    assert context.shape == (4, 3)
    assert future.shape == (2, 2)
    assert np.isnan(future).sum(axis=1).tolist() == [missing, missing]


def test_without_covariates_the_context_is_a_view() -> None:
    """No history is copied, and with no known covariates the future has no rows."""
    bare = ONE.select(())
    context, future = cut(bare, Window(0, 5), 3, 2)
    assert np.shares_memory(context, ONE.series[0].target)
    assert future.shape == (0, 2)


def test_only_the_context_is_copied() -> None:
    """With covariates, the copy is as large as the context and not as the history."""
    context, future = cut(ONE, Window(0, 5), 3, 2)
    base = context.base if context.base is not None else context
    assert base.size == 4 * 3
    assert np.shares_memory(future, ONE.series[0].covariates)


def test_windows_of_a_panel() -> None:
    """By origin, then by series, each with the origin in its own positions; series without past or future are out."""
    many = panel(
        series("a", 0, [1, 2, 3, 4, 5, 6]),
        series("begins later", 3, [1, 2, 3]),
        series("ended", 0, [1, 2, 3]),
        series("no past", 0, [NAN, NAN, NAN, NAN, 5, 6]),
        series("no future", 0, [1, 2, 3, 4, NAN, NAN]),
    )
    assert windows_at(many, (2, 4), 2) == (
        Window(0, 2),
        Window(2, 2),
        Window(4, 2),
        Window(0, 4),
        Window(1, 1),
    )
    assert windows_at(many, (3,), 2) == (Window(0, 3), Window(4, 3))


def test_actuals() -> None:
    """Missing values and steps beyond the series are NaN; single precision becomes double."""
    values = actuals(panel(series("a", 0, [0, 1, NAN, 3])), (Window(0, 1), Window(0, 3)), 2)
    np.testing.assert_array_equal(values, [[1, NAN], [3, NAN]])
    assert values.dtype == np.float64
    assert actuals(ONE, (), 2).shape == (0, 2)
