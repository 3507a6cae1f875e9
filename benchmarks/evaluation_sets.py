"""The real series that tiny is judged by, chosen before it was trained; no model of ours is ever trained on them.

Four may guide how the synthetic prior is made. The sealed ones may not: nobody looks at them, and no model is scored on
them, until training has ended; then once. Whoever changes this list makes the figures before and after it incomparable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import readers
from numpy.typing import NDArray

from chronotune.data.panel import FloatArray, Panel, Window
from chronotune.errors import ChronotuneError
from chronotune.metrics import seasonal_scale

HELD_OUT = 0.2
"""Share of each series, at its end, that the windows are laid over."""


@dataclass(frozen=True)
class EvaluationSet:
    """One or many series of a kind, and how they are forecast."""

    name: str
    read: Callable[[], Panel]
    """Gives the series, and says in its docstring what they are."""
    horizon: int
    seasons: tuple[int, ...]
    """Periods in steps that a seasonal naive forecast tries; the first scales SQL and MASE."""
    contexts: tuple[int, ...]
    """Steps of the past that the model is shown, ascending."""
    headline: int
    """The one of them whose scores count."""
    sealed: bool
    fingerprint: str
    """The beginning of `data.prepare.fingerprint` of its panel: other data under this name are refused."""

    def load(self) -> Panel:
        """The series.

        Raises:
            ChronotuneError: Its package is missing, or the data are not those that the list was made with.
        """
        from chronotune.data.prepare import fingerprint

        panel = self.read()
        if not (found := fingerprint(panel)).startswith(self.fingerprint):
            raise ChronotuneError(
                f"the data of {self.name} must have the fingerprint {self.fingerprint}..., but have {found[:12]}...; "
                f"install the version that this benchmark was made with: {readers.INSTALL}"
            )
        return panel


SETS = (
    # name, reader, horizon, seasons, contexts, headline, sealed, fingerprint
    EvaluationSet("steel", readers.steel_power, 96, (96, 672), (192, 672, 1344, 2016), 1344, False, "0ed306ac3ce9"),
    EvaluationSet("solar", readers.solar, 24, (24, 168), (168, 336, 672, 1344), 1344, False, "c790afde7031"),
    EvaluationSet("ridership", readers.ridership, 28, (7, 364), (112, 364, 728, 1456), 1456, False, "a3a5f8985db8"),
    EvaluationSet("monthly", readers.monthly, 12, (12, 1), (48, 96, 192), 192, False, "17e32b2f429a"),
    EvaluationSet("demand", readers.demand, 48, (48, 336), (336, 672, 1344, 2016), 2016, True, "a558835285b6"),
    EvaluationSet("departures", readers.departures, 24, (24, 168), (168, 336, 672, 1344), 1344, True, "bf040a756af0"),
    EvaluationSet("gasoline", readers.gasoline, 13, (52, 1), (104, 260, 520), 520, True, "96b15990df7a"),
    EvaluationSet("housing", readers.housing, 12, (12, 1), (36, 72, 144), 144, True, "4197c04c257b"),
)


def choose(names: Sequence[str], *, sealed: bool) -> tuple[EvaluationSet, ...]:
    """The sets of these names, or all when there are none; sealed ones only when they are asked for.

    Raises:
        ChronotuneError: A name is unknown, or is that of a sealed set and `sealed` is not given.
    """
    known = {one.name: one for one in SETS}
    if wrong := [name for name in names if name not in known]:
        raise ChronotuneError(f"there is no evaluation set {', '.join(wrong)}; there are {', '.join(known)}")
    if closed := [name for name in names if known[name].sealed and not sealed]:
        raise ChronotuneError(
            f"{', '.join(closed)}: sealed sets are scored once, when training has ended; if it has, add --sealed"
        )
    return tuple(one for one in SETS if (one.name in names if names else sealed or not one.sealed))


def rolling(panel: Panel, horizon: int) -> tuple[Window, ...]:
    """Windows side by side over the last fifth of each series, in whole horizons; at least one for each series.

    Windows without any actual value, and those without any past, are left out.
    """
    return tuple(
        Window(number, origin)
        for number, series in enumerate(panel.series)
        for origin in _origins(len(series), horizon)
        if np.isfinite(series.target[:origin]).any() and np.isfinite(series.target[origin : origin + horizon]).any()
    )


def _origins(length: int, horizon: int) -> range:
    held_out = max(1, int(HELD_OUT * length / horizon + 1e-9)) * horizon
    return range(length - held_out, length - horizon + 1, horizon)


def scales(panel: Panel, windows: Sequence[Window], season: int) -> NDArray[np.float64]:
    """For each window the seasonal naive error of its series before the first of its windows, shape (windows,)."""
    begins = {number: min(w.origin for w in windows if w.series == number) for number in {w.series for w in windows}}
    by_series = {number: seasonal_scale(_past(panel, number, end), season) for number, end in begins.items()}
    return np.array([by_series[window.series] for window in windows])


def _past(panel: Panel, series: int, end: int) -> FloatArray:
    return panel.series[series].target[:end]
