"""Is one model really better than another on the same test windows? A paired block bootstrap over days.

The days of two forecasts are resampled together, in blocks as long as their difference remembers, and the relative
gain is computed anew each time (Kuensch 1989, made circular by Politis & Romano 1992).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chronotune.metrics import Floats

DAY = timedelta(days=1)
RESAMPLINGS = 10_000
LEVEL, POWER = 0.95, 0.8
MIN_BLOCKS = 10
"""Fewer blocks than this give no verdict: their spread is not known well enough for any interval."""
_AT_ONCE = 500
_COLUMNS = 256
"""Series whose gains are kept at once: 20 MB for 10,000 resamplings, 65 with copies, however many series there are."""


@dataclass(frozen=True)
class SeriesGains:
    """The same comparison for each series of a panel."""

    series: int
    worse: int
    """Series whose loss is higher with the challenger."""
    clearly_worse: int
    """Series whose whole interval of the gain is below 0. Of many equal ones, one in forty is by chance."""
    gains: tuple[float, ...]
    """Relative gain of each series, NaN for one without loss."""


@dataclass(frozen=True)
class Comparison:
    """What the test windows say about a challenger beside a reference."""

    gain: float
    """1 - loss of the challenger / loss of the reference: positive is better. NaN when the reference has no loss."""
    low: float
    """Lower end of the 95% interval of the gain."""
    high: float
    """Upper end of the 95% interval of the gain."""
    smallest: float
    """The smallest gain that these windows show with 80% power."""
    win_rate: float
    """Share of the blocks in which the challenger's loss is lower; a tie counts half."""
    days: int
    """Days (of data in steps of a day or longer: origins) with a test window."""
    block: int
    """Days in a block."""
    by_series: SeriesGains | None = None

    @property
    def blocks(self) -> int:
        """Whole blocks that the days hold: the independent observations."""
        return self.days // self.block

    @property
    def is_enough(self) -> bool:
        """Whether there are enough blocks for any verdict."""
        return self.blocks >= MIN_BLOCKS


def compare(
    challenger: Floats, reference: Floats, *, root: bool = False, shortest: int = 1, resamplings: int = RESAMPLINGS
) -> Comparison:
    """Compare two models by their losses of the same days.

    The gain is 1 - sum(challenger) / sum(reference), its square root taken of the quotient for RMSE. The interval is
    the expanded percentile interval of Hesterberg 2015 (doi:10.1080/00031305.2015.1089789): percentiles at the levels
    at which Student's t for `blocks` observations has them, because those of the plain bootstrap are too narrow for
    few. The smallest detectable gain is (t_0.975 + t_0.8) times the standard error, t with blocks - 1 degrees of
    freedom (Bloom 1995, "Minimum detectable effects"): a true gain of that size puts the interval's lower end above 0
    in 80% of such test segments. The standard error is the bootstrap's times sqrt(blocks / (blocks - 1)).

    Args:
        challenger: Losses of each day, in time order, shape (days,) or, for a panel, (days, series): sums over the
            windows of `metrics.additive_losses`, 0 where a series has no window.
        reference: The same of the model to beat.
        root: The losses are squared errors, and the gain is in RMSE.
        shortest: Least days of a block, e.g. as many as the forecast of one day reaches into.
        resamplings: Of the bootstrap. The random numbers are the same in every call.

    Returns:
        The comparison; its interval is NaN where a loss is not finite or all of the reference's are 0.
    """
    losses = np.stack([_two(challenger), _two(reference)])
    assert losses[0].shape == losses[1].shape
    days, series = losses.shape[1:]
    one, other = totals = losses.sum(axis=2)
    gain = float(_gain(one.sum(), other.sum(), root))
    block = max(min(shortest, days), block_length((1 - gain) ** (2 if root else 1) * other - one))
    nothing = Comparison(gain, math.nan, math.nan, math.nan, _win_rate(one, other, block), days, block)
    if not np.isfinite(gain) or days // block < 2:
        return nothing
    gains = _resampled(totals[:, :, None], block, resamplings, root)
    blocks = days / block
    low, high = _interval(gains, blocks)
    error = float(gains.std()) * math.sqrt(blocks / (blocks - 1))
    return Comparison(
        gain,
        float(low[0]),
        float(high[0]),
        (_t(0.5 + LEVEL / 2, blocks) + _t(POWER, blocks)) * error,
        nothing.win_rate,
        days,
        block,
        _series_gains(losses, block, resamplings, root) if series > 1 else None,
    )


def overlap(step: timedelta, horizon: int, stride: int) -> int:
    """Days (origins, for steps of a day or longer) that share forecast steps: the least length of a block."""
    if stride >= horizon:
        return 1
    return max(1, math.ceil(horizon * step / DAY)) if step < DAY else math.ceil(horizon / stride)


def by_day(losses: Floats, days: NDArray[np.int64], series: NDArray[np.int64]) -> Floats:
    """Sum the losses of windows over the days that they begin on, for each series.

    Args:
        losses: Shape (windows,), as `metrics.additive_losses`.
        days: Shape (windows,), numbers that tell the days apart and put them in order.
        series: Shape (windows,), likewise the series.

    Returns:
        Shape (days, series), those that occur, in order; 0 where a series has no window.
    """
    (kept, row), (columns, column) = np.unique(days, return_inverse=True), np.unique(series, return_inverse=True)
    sums = np.zeros((len(kept), len(columns)))
    np.add.at(sums, (row, column), losses)
    return sums


def _two(losses: Floats) -> Floats:
    values = np.asarray(losses, dtype=np.float64)
    return values if values.ndim == 2 else values[:, None]


def _gain(one: Any, other: Any, root: bool) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(other > 0, one / other, np.nan)
    return np.asarray(1 - (np.sqrt(ratio) if root else ratio))


def _resampled(losses: Floats, block: int, resamplings: int, root: bool) -> Floats:
    """Gains of each resampling; `losses` has shape (2, days, columns), the result (resamplings, columns)."""
    random, days = np.random.default_rng(0), losses.shape[1]
    parts = []
    for begin in range(0, resamplings, _AT_ONCE):
        drawn = draws(random, min(_AT_ONCE, resamplings - begin), days, block)
        parts.append(_gain(drawn @ losses[0], drawn @ losses[1], root))
    return np.concatenate(parts)


def draws(random: np.random.Generator, size: int, days: int, block: int) -> NDArray[np.float64]:
    """How often each day is drawn in each of `size` resamplings: circular blocks, the last cut to make `days` days.

    Returns:
        Shape (size, days), each row with the sum `days`.
    """
    starts = random.integers(0, days, (size, -(-days // block)))
    chosen = ((starts[:, :, None] + np.arange(block)) % days).reshape(size, -1)[:, :days]
    flat = (chosen + np.arange(size)[:, None] * days).ravel()
    return np.bincount(flat, minlength=size * days).reshape(size, days).astype(np.float64)


def _interval(gains: Floats, blocks: float) -> tuple[Floats, Floats]:
    outside = NormalDist().cdf(-math.sqrt(blocks / (blocks - 1)) * _t(0.5 + LEVEL / 2, blocks))
    low, high = np.quantile(gains, [outside, 1 - outside], axis=0)
    return low, high


def _t(level: float, blocks: float) -> float:
    """Student's t at `level` for so many observations: Abramowitz & Stegun 26.7.5, within 0.2% from 10 on."""
    z, degrees = NormalDist().inv_cdf(level), blocks - 1
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / degrees + second / degrees**2


def _win_rate(one: Floats, other: Floats, block: int) -> float:
    starts = np.arange(0, len(one) - len(one) % block, block)
    ours, theirs = (np.add.reduceat(losses[: starts[-1] + block], starts) for losses in (one, other))
    return float(((ours < theirs) + 0.5 * (ours == theirs)).mean())


def _series_gains(losses: Floats, block: int, resamplings: int, root: bool) -> SeriesGains:
    """`losses` has shape (2, days, series); the resamplings, the same for all, are drawn again for each _COLUMNS."""
    sums, clearly_worse = losses.sum(axis=1), 0
    gains = _gain(sums[0], sums[1], root)
    for begin in range(0, len(gains), _COLUMNS):
        part = _resampled(losses[:, :, begin : begin + _COLUMNS], block, resamplings, root)
        _, high = _interval(part, losses.shape[1] / block)
        clearly_worse += int((high < 0).sum())
    return SeriesGains(len(gains), int((gains < 0).sum()), clearly_worse, tuple(map(float, gains)))


def block_length(differences: Floats) -> int:
    """The length of blocks for the circular block bootstrap, from the autocorrelation of the differences.

    Source: Politis & White 2004, with the correction of Patton, Politis & White 2009. Autocovariances R(k) count up
    to twice the lag behind which K_n = max(5, log10 n) autocorrelations in a row stay inside 2 sqrt(log10(n) / n);
    a flat-top window w weighs them; with G = sum w |k| R(k) and g = sum w R(k) the length is
    (2 G^2 / (4/3 g^2))^(1/3) n^(1/3), at most min(3 sqrt(n), n / 3). Unlike there it is 1 when G is negative: days that
    make up for each other are steadier than single days drawn freely, which is then the safe side.

    Args:
        differences: Shape (days,), in time order.

    Returns:
        At least 1; 1 for differences without variance, or that are not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    centred = values - values.mean() if n else values
    if n < 3 or not np.isfinite(centred).all() or np.allclose(centred, 0):
        return 1
    covariances = np.correlate(centred, centred, "full")[n - 1 :] / n
    run, longest = max(5, int(math.log10(n))), min(n - 1, math.ceil(math.sqrt(n)) + max(5, int(math.log10(n))))
    small = np.abs(covariances[1:] / covariances[0]) < 2 * math.sqrt(math.log10(n) / n)
    quiet = (lag for lag in range(n) if small[lag : lag + run].all())
    reach = min(2 * max(1, next(quiet, longest)), longest)
    lags = np.arange(-reach, reach + 1)
    weights = np.clip(2 * (1 - np.abs(lags) / reach), 0, 1) * covariances[np.abs(lags)]
    variance, slope = weights.sum(), (weights * np.abs(lags)).sum()
    if slope <= 0:
        return 1
    bound = min(3 * math.sqrt(n), n / 3)
    length = (1.5 * (slope / variance) ** 2 * n) ** (1 / 3) if variance > 0 else bound
    return max(1, math.ceil(min(length, bound)))
