"""A small LSTM with a quantile head, a baseline of the kind that many would train first.

Source: Wen et al. 2017, "A Multi-Horizon Quantile Recurrent Forecaster": one LSTM reads the past, and a shared head
forecasts every step of the horizon directly, from the LSTM's state and what is known of the step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chronotune.data.panel import FloatArray, Panel, Series, Window
from chronotune.data.windows import actuals, taking_part
from chronotune.metrics import QUANTILES

if TYPE_CHECKING:
    from torch import Tensor

HIDDEN, BATCH, STEPS, RATE = 40, 64, 400, 4e-3
EVERY, PATIENCE = 25, 4
"""Validation is looked at after so many steps, and training ends when it was not better so often in a row."""
_AT_ONCE = 256
"""Windows that are forecast at once, of validation and of what is asked for: what decides the memory."""
_MONDAY = datetime(1970, 1, 5)
_PERIODS = (86_400, 604_800)


def context_of(seasons: Sequence[int]) -> int:
    """Steps of the past that it reads: two main seasons, at most 256."""
    return min(256, max(48, 2 * seasons[0]))


def forecast(
    panel: Panel,
    windows: Sequence[Window],
    *,
    train_end: int,
    validation: Sequence[Window],
    horizon: int,
    seasons: Sequence[int],
    scales: FloatArray,
    levels: Sequence[float] = QUANTILES,
    seed: int = 0,
) -> FloatArray:
    """Train on what lies before `train_end`, stop where `validation` is best, then forecast the windows.

    The same numbers for the same arguments on one machine; the global random generators are left as they were.

    Args:
        panel: Targets and past-only covariates before each origin, and known ones up to the horizon are read.
        windows: What to forecast.
        train_end: Position on the panel's time axis before which all targets of the training lie.
        validation: Windows behind it.
        horizon: Steps to forecast.
        seasons: Seasonal periods in steps.
        scales: For each series, what its values are divided by; NaN leaves a series out of the training.
        levels: Of the quantiles to forecast.
        seed: Of the weights and of the drawing of windows.

    Returns:
        Shape (windows, levels, horizon), ascending in the levels. NaN when there is nothing to train on.
    """
    import torch

    table = _Table(panel, train_end, horizon, seasons, scales)
    drawer = _Drawer(panel, train_end, horizon, scales, np.random.default_rng(seed))
    if not drawer.count or not windows:
        return np.full((len(windows), len(levels), horizon), np.nan)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _trained(table, drawer, validation, levels)
    units = np.array([scales[window.series] for window in windows])[:, None, None]
    return np.asarray(np.sort(_predicted(model, table, windows), axis=1) * units)


@dataclass(frozen=True)
class _Batch:
    seen: Tensor
    """Shape (windows, context, features)."""
    ahead: Tensor
    """Shape (windows, horizon, features)."""


class _Drawer:
    """Draws training windows: those whose horizon ends before `train_end`, of series that have a scale."""

    def __init__(
        self, panel: Panel, train_end: int, horizon: int, scales: FloatArray, random: np.random.Generator
    ) -> None:
        self._panel, self._origins, self._random = panel, np.arange(horizon, train_end - horizon + 1), random
        usable = taking_part(panel.until(train_end), self._origins.tolist(), horizon) & np.isfinite(scales)
        self._places = np.flatnonzero(usable)
        self.count = len(self._places)

    def draw(self, size: int) -> list[Window]:
        """Any of them, with replacement."""
        rows, numbers = np.divmod(self._random.choice(self._places, size), len(self._panel.series))
        offsets = [series.offset for series in self._panel.series]
        return [Window(int(n), int(self._origins[row]) - offsets[n]) for row, n in zip(rows, numbers, strict=True)]


class _Table:
    """A panel's series as features of each step, standardised by what the training segment holds."""

    def __init__(self, panel: Panel, train_end: int, horizon: int, seasons: Sequence[int], scales: FloatArray) -> None:
        self.panel, self.horizon, self.scales, self.context = panel, horizon, scales, context_of(seasons)
        ahead = np.arange(horizon)
        self._repeats = [ahead - season * (ahead // season + 1) for season in seasons]
        targets = [series.target / scale for series, scale in zip(panel.series, scales, strict=True)]
        before = [t[: max(0, train_end - s.offset)] for t, s in zip(targets, panel.series, strict=True)]
        self._targets = [_filled((target - _mean(before)) / _spread(before)) for target in targets]
        past = [s.covariates[:, : max(0, train_end - s.offset)] for s in panel.series]
        rows = range(len(panel.covariates))
        means, spreads = ([f([p[row] for p in past]) for row in rows] for f in (_mean, _spread))
        self.middle, self.spread = _mean(before), _spread(before)
        covariates = [
            _filled((s.covariates - np.array(means)[:, None]) / np.array(spreads)[:, None]) for s in panel.series
        ]
        known = [
            np.concatenate([self._calendar(s), one[len(panel.past_only) :]]).T
            for s, one in zip(panel.series, covariates, strict=True)
        ]
        self._known = known
        self._seen = [
            np.column_stack([target, np.isfinite(s.target), one[: len(panel.past_only)].T, k]).astype(np.float32)
            for s, target, one, k in zip(panel.series, self._targets, covariates, known, strict=True)
        ]

    def _calendar(self, series: Series) -> FloatArray:
        """Sine and cosine of the time of day and of the week, shape (4, steps)."""
        seconds = (self.panel.time(series.offset) - _MONDAY).total_seconds()
        times = seconds + self.panel.step.total_seconds() * np.arange(len(series))
        angles = [2 * np.pi * times / period for period in _PERIODS]
        return np.stack([turn(angle) for angle in angles for turn in (np.sin, np.cos)])

    def batch(self, windows: Sequence[Window]) -> _Batch:
        """What is known of some windows at their origins; nothing behind them of what is measured."""
        import torch

        seen, ahead = zip(*(self._features(window) for window in windows), strict=True)
        return _Batch(torch.from_numpy(np.stack(seen)), torch.from_numpy(np.stack(ahead)))

    def _features(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        seen, known, target = (part[window.series] for part in (self._seen, self._known, self._targets))
        past = seen[max(0, window.origin - self.context) : window.origin]
        padded = np.concatenate([np.zeros((self.context - len(past), seen.shape[1]), np.float32), past])
        future = np.zeros((self.horizon, known.shape[1]), np.float32)
        there = known[window.origin : window.origin + self.horizon]
        future[: len(there)] = there
        lags = [_at(target, window.origin + repeat) for repeat in self._repeats]
        place = np.linspace(0, 1, self.horizon)
        return padded, np.column_stack([future, *lags, place]).astype(np.float32)

    def truth(self, windows: Sequence[Window]) -> Tensor:
        """What came true, standardised, shape (windows, 1, horizon), NaN where missing."""
        import torch

        units = self.scales[[window.series for window in windows]][:, None]
        values = (actuals(self.panel, windows, self.horizon) / units - self.middle) / self.spread
        return torch.from_numpy(values[:, None].astype(np.float32))


def _network(table: _Table, batch: _Batch, levels: int) -> Any:
    from torch import nn

    class Network(nn.Module):  # type: ignore[misc]  # torch is not followed
        def __init__(self) -> None:
            super().__init__()
            self.reader = nn.LSTM(batch.seen.shape[2], HIDDEN, batch_first=True)
            self.head = nn.Sequential(
                nn.Linear(HIDDEN + batch.ahead.shape[2], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, levels)
            )

        def forward(self, one: _Batch) -> Tensor:
            from torch import cat

            state = self.reader(one.seen)[0][:, -1:].expand(-1, table.horizon, -1)
            return self.head(cat([state, one.ahead], dim=2)).mT

    return Network()


def _trained(table: _Table, drawer: _Drawer, validation: Sequence[Window], levels: Sequence[float]) -> Any:
    """The network as it was when validation was best."""
    import torch

    model = _network(table, table.batch(drawer.draw(1)), len(levels))
    optimizer, quantiles = torch.optim.Adam(model.parameters(), lr=RATE), torch.tensor(levels)[:, None]
    lowest, best, idle = np.inf, copy.deepcopy(model.state_dict()), 0
    for step in range(1, STEPS + 1):
        drawn = drawer.draw(BATCH)
        optimizer.zero_grad()
        _pinball(model(table.batch(drawn)), table.truth(drawn), quantiles).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % EVERY:
            continue
        loss = _loss(model, table, validation, quantiles)
        idle += 1
        if loss < lowest:
            lowest, best, idle = loss, copy.deepcopy(model.state_dict()), 0
        if idle == PATIENCE:
            break
    model.load_state_dict(best)
    return model.eval()


def _loss(model: Any, table: _Table, windows: Sequence[Window], quantiles: Tensor) -> float:
    """The mean quantile loss over all that is observed of some windows."""
    import torch

    with torch.inference_mode():
        parts = [_pinball(model(table.batch(part)), table.truth(part), quantiles) for part in _parts(windows)]
        return float(torch.cat(parts).mean())


def _pinball(forecasts: Tensor, truth: Tensor, quantiles: Tensor) -> Tensor:
    """The quantile losses of what is observed, in one row."""
    error = truth - forecasts
    losses = error * (quantiles - (error < 0).to(error.dtype))
    return losses[error.isfinite()]


def _predicted(model: Any, table: _Table, windows: Sequence[Window]) -> FloatArray:
    """In units of the scales, shape (windows, levels, horizon)."""
    import torch

    with torch.inference_mode():
        parts = [model(table.batch(part)).numpy() for part in _parts(windows)]
    return np.asarray(np.concatenate(parts).astype(np.float64) * table.spread + table.middle)


def _parts(windows: Sequence[Window]) -> Iterator[Sequence[Window]]:
    return (windows[begin : begin + _AT_ONCE] for begin in range(0, len(windows), _AT_ONCE))


def _mean(parts: Sequence[FloatArray]) -> float:
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else 0.0


def _spread(parts: Sequence[FloatArray]) -> float:
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    return float(values.std()) or 1.0 if len(values) else 1.0


def _filled(values: FloatArray) -> FloatArray:
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _at(values: FloatArray, positions: NDArray[np.int64]) -> FloatArray:
    """Values at positions before an origin, 0 where there are none."""
    return np.where(positions >= 0, values[np.clip(positions, 0, len(values) - 1)], 0.0)
