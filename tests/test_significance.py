"""The paired block bootstrap against what theory says, on made losses."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from chronotune import significance
from chronotune.significance import MIN_BLOCKS, _t, block_length, by_day, compare, draws, overlap

QUARTER, HOUR, DAY = timedelta(minutes=15), timedelta(hours=1), timedelta(days=1)
student = pytest.importorskip("scipy.stats").t
"""scikit-learn brings scipy."""


def autoregressive(random: np.random.Generator, days: int, memory: float) -> np.ndarray[Any, Any]:
    """A stationary AR(1) series with variance 1."""
    noise = random.normal(size=days + 200) * np.sqrt(1 - memory**2)
    values = np.zeros(days + 200)
    for before, now in pairwise(range(days + 200)):
        values[now] = memory * values[before] + noise[now]
    return values[200:]


def losses(days: int, gain: float, memory: float = 0.0, seed: int = 0) -> tuple[Any, Any]:
    """Losses of about 10 a day, whose difference has a mean of `gain` times 10 and a standard deviation of 1."""
    random = np.random.default_rng(seed)
    reference = 10 + np.abs(random.normal(size=days))
    return reference * (1 - gain) + autoregressive(random, days, memory), reference


def test_the_gain_and_the_win_rate_by_hand() -> None:
    """The gain is that of the sums, not the mean of daily gains."""
    it = compare(np.array([1.0, 1.0, 3.0, 5.0]), np.array([2.0, 1.0, 5.0, 4.0]))
    assert it.gain == pytest.approx(1 - 10 / 12)
    assert it.win_rate == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert compare(np.array([1.0, 8.0]), np.array([4.0, 5.0]), root=True).gain == pytest.approx(0)
    assert compare(np.array([4.0, 5.0]), np.array([16.0, 20.0]), root=True).gain == pytest.approx(0.5)


def test_the_interval_of_independent_days_is_that_of_student() -> None:
    """For a mean of differences over a constant reference there is an exact answer."""
    random = np.random.default_rng(4)
    reference, challenger = np.full(40, 10.0), 9.5 + random.normal(size=40)
    it = compare(challenger, reference)
    half = student.ppf(0.975, 39) * (challenger / 10).std(ddof=1) / np.sqrt(40)
    assert it.block == 1
    assert (it.low, it.high) == pytest.approx((it.gain - half, it.gain + half), abs=0.1 * half)
    wanted = (student.ppf(0.975, 39) + student.ppf(0.8, 39)) * (challenger / 10).std(ddof=1) / np.sqrt(40)
    assert it.smallest == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("level", [0.8, 0.975])
@pytest.mark.parametrize("blocks", [MIN_BLOCKS, 30.5, 400])
def test_t_is_that_of_scipy(level: float, blocks: float) -> None:
    """From the fewest blocks on that a verdict rests on."""
    assert _t(level, blocks) == pytest.approx(student.ppf(level, blocks - 1), rel=2e-3)


def test_the_same_numbers_give_the_same_answer() -> None:
    """In every call and process: the seed is fixed."""
    assert compare(*losses(60, 0.05, 0.5)) == compare(*losses(60, 0.05, 0.5))


def test_a_model_beside_itself() -> None:
    """No gain, no spread, and nobody wins."""
    reference = losses(50, 0)[1]
    it = compare(reference, reference)
    assert (it.gain, it.low, it.high, it.smallest, it.win_rate) == (0, 0, 0, 0, 0.5)


def test_days_that_remember_make_the_interval_wider() -> None:
    """The same spread of days, in blocks: with autocorrelation .8 nine times the variance."""
    free, bound = compare(*losses(500, 0.05)), compare(*losses(500, 0.05, 0.8))
    assert free.block < bound.block
    assert 2 < bound.smallest / free.smallest < 4


def test_the_block_length_follows_the_autocorrelation() -> None:
    """Politis & White: the theoretical optimum of AR(1), (6 (rho / (1 - rho^2))^2 n)^(1/3), on average."""
    for memory in (0.3, 0.7):
        optimum = (6 * (memory / (1 - memory**2)) ** 2 * 1000) ** (1 / 3)
        lengths = [block_length(autoregressive(np.random.default_rng(seed), 1000, memory)) for seed in range(40)]
        assert np.mean(lengths) == pytest.approx(optimum, rel=0.25)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [3.0] * 50, [float("nan")] * 50])
def test_the_block_length_of_nothing_is_one(values: list[float]) -> None:
    """Too few, constant or not finite."""
    assert block_length(np.array(values)) == 1


def test_the_shortest_block_is_respected() -> None:
    """Forecasts that overlap are not independent, whatever their correlation says."""
    assert compare(*losses(60, 0.1), shortest=7).block == 7
    assert compare(*losses(4, 0.1), shortest=7).block == 4


@pytest.mark.parametrize(
    ("step", "horizon", "stride", "days"),
    [
        (QUARTER, 96, 96, 1),
        (QUARTER, 1, 1, 1),
        (QUARTER, 96, 24, 1),
        (HOUR, 48, 24, 2),
        (HOUR, 49, 24, 3),
        (HOUR, 168, 168, 1),
        (DAY, 7, 7, 1),
        (DAY, 7, 1, 7),
        (7 * DAY, 6, 4, 2),
    ],
)
def test_blocks_hold_forecasts_that_overlap(step: timedelta, horizon: int, stride: int, days: int) -> None:
    """In days; in origins for data in steps of a day or longer."""
    assert overlap(step, horizon, stride) == days


def test_draws_are_blocks_of_neighbours() -> None:
    """Every resampling has as many days as there are; whole blocks hold neighbours, around the end too."""
    drawn = draws(np.random.default_rng(0), 200, 10, 3)
    assert (drawn.sum(axis=1) == 10).all()
    assert drawn.sum(axis=0) == pytest.approx(np.full(10, 200), rel=0.2)
    whole = draws(np.random.default_rng(0), 200, 9, 9)
    assert (whole == 1).all()
    shorter = draws(np.random.default_rng(1), 200, 50, 5)
    neighbours = (shorter > 0) & ((np.roll(shorter, 1, axis=1) > 0) | (np.roll(shorter, -1, axis=1) > 0))
    assert (neighbours.sum(axis=1) == (shorter > 0).sum(axis=1)).all()


def test_few_days_are_not_enough() -> None:
    """Counted in blocks."""
    up_and_down = 5.0 + np.arange(MIN_BLOCKS) % 2
    assert compare(up_and_down, np.full(MIN_BLOCKS, 10.0)).is_enough
    assert not compare(up_and_down[1:], np.full(MIN_BLOCKS - 1, 10.0)).is_enough
    assert not compare(*losses(5 * MIN_BLOCKS - 1, 0.5), shortest=5).is_enough
    assert np.isnan(compare(*losses(1, 0.5)).low)


def test_what_is_not_finite_has_no_interval() -> None:
    """A forecast of NaN, or a reference that is never wrong."""
    challenger, reference = losses(30, 0.1)
    challenger[3] = float("nan")
    assert np.isnan([compare(challenger, reference).gain, compare(challenger, reference).low]).all()
    assert np.isnan([compare(reference, np.zeros(30)).gain, compare(reference, np.zeros(30)).low]).all()


def test_panels_are_compared_by_series_too() -> None:
    """The whole as if it were one series; one series is clearly worse, one is better, one is a toss."""
    random = np.random.default_rng(2)
    reference = 10 + random.normal(size=(80, 3))
    challenger = reference * np.array([1.2, 0.7, 1.0]) + 0.1 * random.normal(size=(80, 3))
    it = compare(challenger, reference)
    assert it.by_series is not None
    assert it.by_series.series == 3
    assert it.by_series.clearly_worse == 1
    assert it.by_series.worse in (1, 2)
    assert it.by_series.gains[:2] == pytest.approx((-0.2, 0.3), abs=0.01)
    alone = compare(challenger.sum(axis=1), reference.sum(axis=1))
    assert (it.gain, it.low, it.high, it.block) == pytest.approx((alone.gain, alone.low, alone.high, alone.block))
    assert alone.by_series is None


def test_a_panel_is_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Series are compared a few at a time, with the same resamplings: as if all were at once."""
    random = np.random.default_rng(4)
    reference = 10 + random.normal(size=(60, 11))
    challenger = reference * np.linspace(0.98, 1.02, 11) + random.normal(size=(60, 11))
    whole = compare(challenger, reference)
    monkeypatch.setattr(significance, "_COLUMNS", 3)
    assert compare(challenger, reference) == whole
    assert whole.by_series is not None
    assert 0 < whole.by_series.clearly_worse < whole.by_series.worse


def test_windows_are_summed_by_day() -> None:
    """In order of days and series; a series without a window that day adds nothing."""
    days, series = np.array([7, 5, 5, 7]), np.array([2, 0, 0, 0])
    assert by_day(np.array([1.0, 2.0, 4.0, 8.0]), days, series).tolist() == [[6, 0], [8, 1]]
