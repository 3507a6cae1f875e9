"""Known-future covariates that cannot have been known: judged by what they tell of the target, on training alone.

A covariate gives the target away when, at the same time, it explains much of what the calendar and the target's own
past leave open, although the calendar and its own past do not tell the covariate. The calendar's own children (time of
day, weekday, the sun above the atmosphere) may explain what they like: they are known.

Shares that were measured on training rows, of the steel data: CO2 .88, lagging and leading reactive power .72 and .33,
their power factors .41 and .30, Load_Type .12, calendar columns at most .01; of the solar data, measured cloud cover
.51, humidity .43, temperature .16, wind 0, and etr, which is astronomy, .02. Noise and random walks are below 0.
Boosted trees on held-out days find the same order (steel .95, .82, .35, .44, .32, .06; solar .67, .39, .17, .01, .05).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from chronotune.config.recipe import DataConfig
from chronotune.data.findings import Finding
from chronotune.data.rows import SERIES, TIME

REFUSED = 0.2
"""Share of the open variance from which a covariate is taken to be measured with the target."""
SUSPECT = 0.02
"""Share from which it is worth a warning."""
CHANCE = 40
"""Divided by the rows, what is added to both: more than noise reached in simulations of 120 to 9,000 rows."""
KNOWN = 0.99
"""R2 from which the calendar tells a covariate, so that nothing it says is a leak."""
LEAST = 100
"""Rows of a series that anything is judged by."""
_SERIES, _ROWS, _BINS, _FOLDS, _PRIOR = 10, 50_000, 20, 5, 5
_DAY = 86_400_000_000

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Evidence:
    """What a covariate says about the target at the same time."""

    share: float
    """Of the variance that the calendar and the target's past leave open, out of sample; below 0 for noise."""
    known: float
    """R2 of the covariate by the calendar and its own past."""
    rows: int
    """Of the longest series that was asked: series of a panel are too alike to count each."""
    labels_days: bool
    """Whether it has few values, one for each whole day: as holidays have, which no calendar of weeks tells."""

    @property
    def suspicion(self) -> Literal["none", "some", "strong"]:
        """Whether the covariate gives the target away; a label of whole days is never beyond `some`."""
        if self.known >= KNOWN or self.share < SUSPECT + CHANCE / self.rows:
            return "none"
        return "some" if self.labels_days or self.share < REFUSED + CHANCE / self.rows else "strong"


def leak_findings(train: pl.DataFrame, data: DataConfig) -> Iterator[Finding]:
    """An error for each known-future covariate that gives the target away, a warning where it may or is trusted.

    Args:
        train: Training rows of a framed table, series after series by time, numbers as Float64, categories as text.
        data: Names the columns and the seasons.
    """
    parts = judges(train)
    for name in data.known_future:
        found = evidence(parts, name, data)
        if found is None or found.suspicion == "none":
            continue
        says = (
            f"but at the same time it tells {found.share:.0%} of what the calendar and the target's past leave open, "
            f"and is not of the calendar itself (R2 {found.known:.2f})"
        )
        if name in data.trust_known_future:
            rule = f"is trusted to be known in advance, {says}"
            yield Finding("warning", name, rule, "Make sure that this very value was there before each forecast")
        elif found.suspicion == "some":
            remedy = "If it is measured or labelled afterwards, move it to data.past_only or leave it out"
            yield Finding("warning", name, f"should be known in advance, {says}", remedy)
        else:
            remedy = (
                "If it is measured with the target, move it to data.past_only; if it is a plan or a forecast that was "
                "there before, name it in data.trust_known_future too"
            )
            yield Finding("error", name, f"must be known in advance, {says}", remedy)


def judges(train: pl.DataFrame) -> list[pl.DataFrame]:
    """The rows of up to ten series that are long enough, from all over the panel; what each column is judged by."""
    long = train.group_by(SERIES, maintain_order=True).len().filter(pl.col("len") >= LEAST)[SERIES]
    spread = np.linspace(0, len(long) - 1, min(_SERIES, len(long))).round().astype(int)
    return [train.filter(pl.col(SERIES) == long[int(row)]).tail(_ROWS) for row in spread]


def evidence(parts: Sequence[pl.DataFrame], name: str, data: DataConfig) -> Evidence | None:
    """What some series, the `judges`, say about one covariate; None when there is too little to judge."""
    found = [sums for part in parts if (sums := _of_series(part, name, data)) is not None]
    if not found:
        return None
    base, mixed, fresh, rest = np.mean(found, axis=0)
    share = float(1 - min(mixed, fresh) / base) if base > 0 else 0.0
    return Evidence(share, float(1 - rest), max(part.height for part in parts), all(_labels(p, name) for p in parts))


def _labels(rows: pl.DataFrame, name: str) -> bool:
    alike = rows.group_by(pl.col(TIME) // _DAY).agg(pl.col(name).n_unique() == 1)
    return rows[name].n_unique() <= _BINS and bool(alike[name].mean() > 0.99)  # type: ignore[operator]  # of booleans


def _of_series(rows: pl.DataFrame, name: str, data: DataConfig) -> tuple[float, float, float, float] | None:
    """Errors in shares of the variance: the target's, with the covariate, with what is new in it; the covariate's."""
    target, covariate = rows[data.target].to_numpy().astype(np.float64), _numbers(rows[name])
    there = np.isfinite(target) & np.isfinite(covariate)
    if there.sum() < LEAST or target[there].std() == 0 or covariate[there].std() == 0:
        return None
    calendar = _Calendar.of(rows[TIME].to_numpy()[there])
    expected, usual = (_expected(values, there, calendar, data.seasons) for values in (target, covariate))
    errors, news = (values[there] - told for values, told in ((target, expected), (covariate, usual)))
    bins = int(np.clip(np.sqrt(len(errors) / 20), 4, _BINS))
    levels = _binned(expected, bins)
    tables = (levels, *(_crossed(levels, _binned(values, bins)) for values in (covariate[there], news)))
    left = [float(np.square(errors - _mean_elsewhere(errors, cells, calendar.fold)).mean()) for cells in tables]
    variance = float(target[there].var())
    bare, mixed, fresh = (one / variance for one in left)
    base = min(bare, float(np.square(errors).mean()) / variance)  # a table may be worse than none
    return base, mixed, fresh, float(np.square(news).mean() / covariate[there].var())


def _numbers(column: pl.Series) -> Floats:
    """The column as numbers; categories by their place in the alphabet, which says nothing of the target."""
    if column.dtype != pl.String:
        return column.to_numpy().astype(np.float64)
    return column.rank("dense").cast(pl.Float64).to_numpy()


@dataclass(frozen=True)
class _Calendar:
    """For each row what its time says, and its fold."""

    cells: tuple[Codes, Codes, Codes]
    """Numbers of its time of day, of that and its weekday, of that and its ten days."""
    fold: Codes
    """Of whole blocks of days, so that rows which are alike because they are neighbours are not told by each other."""

    @classmethod
    def of(cls, times: NDArray[np.int64]) -> _Calendar:
        day, clock = (times - times.min() + times.min() % _DAY) // _DAY, times % _DAY
        slot = np.unique(clock, return_inverse=True)[1].astype(np.int64)
        weekday = (times // _DAY) % 7
        days = int(day.max()) + 1
        length = max(1, min(10, days // 10), days // 50)
        return cls((slot, slot * 7 + weekday, _crossed(slot, day // 10)), (day // length) % _FOLDS)


def _expected(values: Floats, there: NDArray[np.bool_], calendar: _Calendar, seasons: list[int]) -> Floats:
    """What the calendar and the values one season before say of each row that is there: a linear mix, least squares."""
    known = values[there]
    told, rest = [np.ones(len(known))], known - known.mean()
    for cells in calendar.cells:
        rest = rest - _mean_of_others(rest, cells)
    told.append(known - rest)
    for season in seasons:
        if season < len(values):
            before = np.concatenate([np.full(season, np.nan), values[:-season]])[there]
            told.append(np.where(np.isfinite(before), before, known.mean()))
    matrix = np.stack(told, axis=1)
    weights = np.linalg.lstsq(matrix, known, rcond=None)[0]
    return np.asarray(matrix @ weights)


def _mean_of_others(values: Floats, cells: Codes) -> Floats:
    """The mean of the other rows in each row's cell; 0 where there is none."""
    count, total = np.bincount(cells), np.bincount(cells, values)
    others = count[cells] - 1
    return np.where(others > 0, (total[cells] - values) / np.maximum(others, 1), 0.0)


def _mean_elsewhere(values: Floats, cells: Codes, fold: Codes) -> Floats:
    """The mean of each row's cell over the rows of other folds, pulled to their overall mean as if by five rows."""
    cells = np.unique(cells, return_inverse=True)[1]
    shape = (_FOLDS, int(cells.max()) + 1)
    flat = fold * shape[1] + cells
    count = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
    total = np.bincount(flat, values, minlength=shape[0] * shape[1]).reshape(shape)
    others, sums = count.sum(axis=0) - count, total.sum(axis=0) - total
    overall = sums.sum(axis=1, keepdims=True) / np.maximum(others.sum(axis=1, keepdims=True), 1)
    means = (sums + _PRIOR * overall) / (others + _PRIOR)
    return np.asarray(means[fold, cells])


def _binned(values: Floats, bins: int) -> Codes:
    """Values as numbers of bins that hold about as many rows each; few distinct values are bins of their own."""
    distinct, codes = np.unique(values, return_inverse=True)
    if len(distinct) <= bins:
        return codes.astype(np.int64)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def _crossed(one: Codes, other: Codes) -> Codes:
    """Every pair of two codes as one."""
    return np.asarray(one * (int(other.max()) + 1) + other, dtype=np.int64)
