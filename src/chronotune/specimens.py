"""What a report shows of forecasts of the test windows, beyond their scores: a few fans, calibration, residuals.

All forecasts would be too much to keep, so each contender's are seen once, and only those of the compared pair stay
until the windows to show are chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chronotune import metrics
from chronotune.data.panel import FloatArray, Window
from chronotune.metrics import EVALUATION_LEVELS, without_nan
from chronotune.scoring import Ruler

FAN = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Levels of the quantiles that a fan shows: the median and the ends of the 50 and the 90% interval."""
BINS = 41
_PAST, _DIGITS = 2, 5
"""Horizons of the past before a fan, and significant digits."""


class Specimens:
    """Sees the forecasts of each contender once; `chosen` says what is worth keeping."""

    def __init__(self, ruler: Ruler, challenger: str, zero_shot: str) -> None:
        self._ruler, self._pair = ruler, (challenger, zero_shot)
        self._kept: dict[str, FloatArray] = {}
        self._calibration: dict[str, Any] = {}
        self._residuals: dict[str, Any] = {}
        self._scaled = len(ruler.panel.series) > 1
        self._bins = _bins(ruler.actual / self._unit)

    @property
    def _unit(self) -> Any:
        """What residuals are divided by: the scale of each series of a panel, whose levels differ."""
        return self._ruler.scales[:, None] if self._scaled else 1.0

    def see(self, model: str, predictions: FloatArray) -> None:
        """Take what is kept of a contender's forecasts, shape (windows, EVALUATION_LEVELS, horizon)."""
        actual = self._ruler.actual
        observed = ~np.isnan(actual)
        below = (actual[:, None] <= predictions).transpose(1, 0, 2)[:, observed]
        self._calibration[model] = [float(share.mean()) if share.size else None for share in below]
        errors = ((actual - predictions[:, EVALUATION_LEVELS.index(0.5)]) / self._unit)[observed]
        self._residuals[model] = _residuals(errors, self._bins)
        if model in self._pair:
            self._kept[model] = np.asarray(predictions, dtype=np.float32)

    def as_dict(self) -> dict[str, Any]:
        """JSON values.

        Returns:
            `levels` and, for each model, `calibration`: the share of actual values at or below each level's quantile.
            `residuals`: the edges of bins (`bins`; what is beyond the outermost is counted in them), their `unit`
            (`data`, or `scale` of a panel) and for each model counts, mean and standard deviation of actual - median.
            `days`: additive losses of the pair by the day of the origin, summed over series. `windows`: the best, the
            typical and the worst of the challenger, and where it lost most against zero-shot, with past, actual values
            and the quantiles of FAN for each of the pair. The last two are empty unless both of the pair were seen.
        """
        whole = set(self._kept) == set(self._pair)
        told = {
            "levels": list(EVALUATION_LEVELS),
            "calibration": self._calibration,
            "residuals": {
                "unit": "scale" if self._scaled else "data",
                "bins": _short(self._bins),
                "models": self._residuals,
            },
            "fan": list(FAN),
            "days": self._days() if whole else {},
            "windows": list(self._windows()) if whole else [],
        }
        return dict(without_nan(told))

    def _days(self) -> dict[str, Any]:
        ruler = self._ruler
        times = (ruler.panel.time(ruler.panel.series[w.series].offset + w.origin) for w in ruler.windows)
        losses = {model: ruler.losses(kept).sum(axis=1) for model, kept in self._kept.items()}
        return {
            "days": sorted({time.date().isoformat() for time in times}),
            **{
                role: _short(losses[model]) for role, model in zip(("challenger", "zero_shot"), self._pair, strict=True)
            },
        }

    def _windows(self) -> Iterator[dict[str, Any]]:
        ruler = self._ruler
        ours, theirs = (
            metrics.additive_losses(
                self._kept[model], ruler.actual, ruler.scales, ruler.recipe.objective, EVALUATION_LEVELS
            )
            for model in self._pair
        )
        usable = np.isfinite(ours) & np.isfinite(theirs) & (np.isfinite(ruler.actual).mean(axis=1) >= 0.5)
        for role, row in chosen(ours, theirs, usable).items():
            yield {
                "role": role,
                **self._shown(ruler.windows[row], row),
                "loss": {model: float(losses[row]) for model, losses in zip(self._pair, (ours, theirs), strict=True)},
            }

    def _shown(self, window: Window, row: int) -> dict[str, Any]:
        panel, horizon = self._ruler.panel, self._ruler.recipe.horizon
        series = panel.series[window.series]
        begin = max(0, window.origin - max(_PAST * horizon, 24))
        rows = [EVALUATION_LEVELS.index(level) for level in FAN]
        return {
            "series": series.id,
            "start": panel.time(series.offset + begin).isoformat(),
            "step_seconds": panel.step.total_seconds(),
            "past": _short(series.target[begin : window.origin]),
            "actual": _short(self._ruler.actual[row]),
            "forecasts": {model: [_short(kept[row, level]) for level in rows] for model, kept in self._kept.items()},
        }


def chosen(ours: FloatArray, theirs: FloatArray, usable: NDArray[np.bool_]) -> Mapping[str, int]:
    """The rows of windows worth showing by role: `typical` (the median loss), `best`, `worst`, `against`.

    Args:
        ours: Losses of the challenger by window.
        theirs: Those of zero-shot.
        usable: Windows that may be shown.

    Returns:
        Each row once, under its first role; `against` is left out when the challenger lost nowhere.
    """
    rows = np.flatnonzero(usable)
    if not len(rows):
        return {}
    order = rows[np.argsort(ours[rows], kind="stable")]
    behind = rows[np.argmax((ours - theirs)[rows])]
    roles = {"typical": order[(len(order) - 1) // 2], "best": order[0], "worst": order[-1]}
    if ours[behind] > theirs[behind]:
        roles["against"] = behind
    first: dict[str, int] = {}
    for role, row in roles.items():
        if int(row) not in first.values():
            first[role] = int(row)
    return first


def _bins(values: FloatArray) -> FloatArray:
    """Edges around 0, as wide as nearly all deviations of the actual values from their median."""
    known = values[np.isfinite(values)]
    reach = float(np.quantile(np.abs(known - np.median(known)), 0.99)) if known.size else 0.0
    return np.linspace(-1, 1, BINS + 1) * (reach or 1.0)


def _residuals(errors: FloatArray, bins: FloatArray) -> dict[str, Any]:
    finite = errors[np.isfinite(errors)]
    if not finite.size:
        return {"counts": [0] * BINS, "mean": None, "deviation": None}
    counts, _ = np.histogram(np.clip(finite, bins[0], bins[-1]), bins)
    return {"counts": counts.tolist(), "mean": float(finite.mean()), "deviation": float(finite.std())}


def _short(values: FloatArray) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values.tolist()]
