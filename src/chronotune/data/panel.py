"""The checked and encoded series that everything after the data layer works on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from chronotune.config.model import Encoding

FloatArray: TypeAlias = NDArray[np.floating]


@dataclass(frozen=True)
class Series:
    """One series on its panel's time axis. Its arrays may be views and are never written to."""

    id: str
    offset: int
    """Position of the first step on the panel's time axis."""
    target: FloatArray
    """Shape (steps,), float32, NaN where missing."""
    covariates: FloatArray
    """Shape (covariates, steps), float32, rows in the order of `Panel.covariates`."""

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.target)

    @property
    def end(self) -> int:
        """Position after the last step on the panel's time axis."""
        return self.offset + len(self)

    def until(self, end: int) -> Series:
        """The part before position `end` of the panel's time axis, as views."""
        keep = max(0, end - self.offset)
        return Series(self.id, self.offset, self.target[:keep], self.covariates[:, :keep])


@dataclass(frozen=True)
class Panel:
    """One or many regular series with a common step and common covariates."""

    start: datetime
    step: timedelta
    target: str
    past_only: tuple[str, ...]
    known_future: tuple[str, ...]
    series: tuple[Series, ...]
    encodings: Mapping[str, Encoding]
    """For each categorical covariate, the numbers its categories became."""

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the covariate rows: past-only first, then known-future, as Chronos-2 wants them."""
        return self.past_only + self.known_future

    @property
    def end(self) -> int:
        """Length of the time axis."""
        return max(series.end for series in self.series)

    def time(self, position: int) -> datetime:
        """Timestamp (interval start) of a position on the time axis."""
        return self.start + position * self.step

    def until(self, end: int) -> Panel:
        """What is visible before position `end`; series that have not begun by then become empty."""
        return Panel(
            self.start,
            self.step,
            self.target,
            self.past_only,
            self.known_future,
            tuple(series.until(end) for series in self.series),
            self.encodings,
        )

    def select(self, covariates: Sequence[str]) -> Panel:
        """The same series with only the named covariates (rows in panel order)."""
        rows = [row for row, name in enumerate(self.covariates) if name in covariates]
        kept = slice(None) if len(rows) == len(self.covariates) else rows
        return Panel(
            self.start,
            self.step,
            self.target,
            tuple(name for name in self.past_only if name in covariates),
            tuple(name for name in self.known_future if name in covariates),
            tuple(Series(s.id, s.offset, s.target, s.covariates[kept]) for s in self.series),
            {name: code for name, code in self.encodings.items() if name in covariates},
        )


@dataclass(frozen=True)
class Window:
    """One forecast: series number and origin, the position *within that series* of the first forecast step."""

    series: int
    origin: int


@dataclass(frozen=True)
class Split:
    """Positions on the panel's time axis.

    Training is [0, train_end), validation [train_end, test_start), test [test_start, end).
    """

    train_end: int
    test_start: int
    end: int
    validation_origins: tuple[int, ...]
    test_origins: tuple[int, ...]


@dataclass(frozen=True)
class TrialData:
    """What a trial receives: nothing of the test segment is in it, nor was used to make it."""

    panel: Panel
    """Ends where the test segment begins."""
    train_end: int
    """Position on the panel's time axis before which all training targets lie."""
    validation: tuple[Window, ...]
    scales: NDArray[np.float64]
    """For each series the seasonal naive MAE on its training segment, in original units, above 0; NaN without one."""
    horizon: int
