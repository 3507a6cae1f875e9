"""Held-out synthetic series in which a covariate that is known ahead drives the target, and what it is worth at best.

Made by other means than models/tiny/prior.py, from a fixed seed: schedules, set points and plans that nobody could
foresee from the past of the target, each with its own response and delay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from chronotune.data.panel import Panel, Series, Window
from chronotune.metrics import QUANTILES

SEED, SERIES, STEPS, HORIZON, CONTEXT = 816, 24, 1200, 48, 512
SEASON, NOISE, LEVEL = 24, 0.25, 4.0
LAGS = (0, 1, 3)

Array = NDArray[np.float64]
Driver = Callable[[np.random.Generator], Array]


@dataclass(frozen=True)
class Driven:
    """The series, and what they would be without noise."""

    panel: Panel
    expected: Array
    """Shape (series, steps): the mean of each target given its driver."""


def driven() -> Driven:
    """The group, always the same: 24 hourly series of 1,200 steps, each with one covariate `driver`."""
    random = np.random.default_rng(SEED)
    series, expected = [], []
    for number in range(SERIES):
        driver = DRIVERS[number % len(DRIVERS)](random)
        mean = _mean(random, driver, number)
        target = mean + NOISE * random.standard_normal(STEPS)
        covariates = driver[None].astype(np.float32)
        series.append(Series(f"driven {number}", 0, target.astype(np.float32), covariates))
        expected.append(mean)
    start = np.datetime64("2000-01-01").astype("M8[us]").item()
    panel = Panel(start, timedelta(hours=1), "y", (), ("driver",), tuple(series), {})
    return Driven(panel, np.array(expected))


def best_possible(group: Driven, windows: tuple[Window, ...]) -> Array:
    """Forecasts by the law that made the series, shape (windows, 9, horizon): no model can do better."""
    means = np.array([group.expected[w.series, w.origin : w.origin + HORIZON] for w in windows])
    offsets = NOISE * np.array([NormalDist().inv_cdf(level) for level in QUANTILES])
    return np.asarray(means[:, None, :] + offsets[:, None])


def _mean(random: np.random.Generator, driver: Array, number: int) -> Array:
    """Level, a small daily wave, and the driver's effect of unit variance."""
    response = RESPONSES[number // len(DRIVERS) % len(RESPONSES)](driver)
    lag = int(random.choice(LAGS))
    delayed = np.concatenate([np.full(lag, response[0]), response[: STEPS - lag]])
    wave = random.uniform(0.2, 0.5) * np.sin(2 * np.pi * (np.arange(STEPS) / SEASON + random.random()))
    effect = (delayed - delayed.mean()) / delayed.std()
    return np.asarray(LEVEL + wave + random.choice([-1.0, 1.0]) * effect)


def _shifts(random: np.random.Generator) -> Array:
    """On and off for 4 to 30 steps in turn: a schedule."""
    lengths = random.integers(4, 31, STEPS)
    return np.repeat(np.arange(STEPS) % 2, lengths)[:STEPS].astype(np.float64)


def _set_points(random: np.random.Generator) -> Array:
    """Another level every 6 to 40 steps."""
    return np.repeat(random.uniform(-2, 2, STEPS), random.integers(6, 41, STEPS))[:STEPS]


def _plan(random: np.random.Generator) -> Array:
    """Smoothed noise, such as a plan or a forecast of the weather."""
    kernel = np.hanning(11)
    smooth = np.convolve(random.standard_normal(STEPS + 10), kernel / np.linalg.norm(kernel), mode="valid")
    return np.asarray(smooth)


DRIVERS: tuple[Driver, ...] = (_shifts, _set_points, _plan)
RESPONSES: tuple[Callable[[Array], Array], ...] = (
    lambda x: x,
    lambda x: np.tanh(1.5 * x),
    lambda x: np.maximum(x, 0.2),
    lambda x: x + 0.3 * x**2,
)
