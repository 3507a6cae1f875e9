"""The small LSTM: that it reads no future, and that it learns what calendar, lags and a plan tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from chronotune import lstm
from chronotune.baselines import seasonal_naive
from chronotune.data.panel import Window
from chronotune.data.windows import actuals
from test_trees import END, HORIZON, LEVELS, panel_of

TRAIN_END = 840
VALIDATION = [Window(number, origin - 30 * number) for origin in range(TRAIN_END, END - 12, 24) for number in (0, 1)]
WINDOWS = [Window(number, origin - 30 * number) for origin in range(END, 1060, 12) for number in (0, 1)]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lstm, "STEPS", 100)


def forecast(panel: Any, windows: list[Window] = WINDOWS, **changes: Any) -> Any:
    """Of both series, scaled by their sizes."""
    arguments: dict[str, Any] = {"train_end": TRAIN_END, "validation": VALIDATION, "horizon": HORIZON, "seasons": [24]}
    arguments |= {"scales": np.array([1.0, 100.0]), "levels": LEVELS}
    return lstm.forecast(panel, windows, **{**arguments, **changes})


def test_it_knows_the_plan_and_reads_no_future() -> None:
    """Better than the seasonal naive forecast by far; what is measured behind an origin changes nothing.

    Its random numbers are its own: a second training is the same, and the global state is left alone.
    """
    state = torch.random.get_rng_state()
    panel = panel_of()
    got, truth = forecast(panel), actuals(panel, WINDOWS, HORIZON)
    assert torch.equal(state, torch.random.get_rng_state())
    units = np.array([[1.0], [100.0]] * (len(WINDOWS) // 2))
    ours = np.abs(got[:, 1] - truth) / units
    naive = np.abs(seasonal_naive(panel, WINDOWS, horizon=HORIZON, season=24)[:, 4] - truth) / units
    assert ours.mean() < 1.0 < naive.mean() / 2
    assert (np.diff(got, axis=1) >= 0).all()
    first = WINDOWS[:2]
    np.testing.assert_array_equal(forecast(panel_of(changed_from=END), first), got[:2])


def test_nothing_to_train_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Series without a scale are left out; without any, the forecast is NaN. Gaps are features."""
    monkeypatch.setattr(lstm, "STEPS", 25)
    panel = panel_of()
    panel.series[1].target[100:400] = np.nan
    assert np.isnan(forecast(panel, scales=np.array([np.nan, np.nan]))).all()
    one = [window for window in WINDOWS if window.series == 1]
    got = forecast(panel, [*one, Window(1, 3)], scales=np.array([np.nan, 100.0]), validation=one)
    assert np.isfinite(got).all()


def test_no_more_windows_are_computed_at_once_than_memory_is_meant_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of validation nor of the forecast, and the numbers are those of all at once."""
    monkeypatch.setattr(lstm, "STEPS", 25)
    whole, batch, sizes = forecast(panel_of()), lstm._Table.batch, list[int]()

    def counted(table: Any, windows: Any) -> Any:
        sizes.append(len(windows))
        return batch(table, windows)

    monkeypatch.setattr(lstm._Table, "batch", counted)
    monkeypatch.setattr(lstm, "_AT_ONCE", 7)
    np.testing.assert_allclose(forecast(panel_of()), whole, rtol=1e-5)
    assert set(sizes) <= {*range(1, 8), lstm.BATCH}
    assert sizes.count(7) == len(VALIDATION) // 7 + len(WINDOWS) // 7


def test_the_context_is_two_seasons() -> None:
    """Not less than two days of hours, and not more than an LSTM reads in seconds."""
    assert [lstm.context_of(seasons) for seasons in ([7], [48, 336], [672])] == [48, 96, 256]
