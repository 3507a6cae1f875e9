"""Families of single synthetic series: plants, daylight, seasonal curves, counts and free processes.

A family takes a generator and a clock and returns a `Draw`: the series and the signals that explain it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from signals import (
    Array,
    Clock,
    Rng,
    any_noise,
    cycle_profile,
    heavy_noise,
    level_shifts,
    log_uniform,
    random_walk,
    smooth_noise,
    spectral,
    standardise,
    telegraph,
    trend,
    yearly,
)


@dataclass(frozen=True)
class Draw:
    """A series of shape (n,) with helpful companions: some known ahead, some only observed."""

    values: Array
    known: list[Array] = field(default_factory=list)
    observed: list[Array] = field(default_factory=list)


def day_off_rate(rng: Rng) -> float:
    """Share of days that fall out of the weekly pattern; none in half of the draws."""
    return 0.0 if rng.random() < 0.5 else float(rng.uniform(0.01, 0.15))


def work_week(rng: Rng, week: int) -> Array:
    """Activity of each weekday in [0, 1], shape (week,): mostly five working days and a quiet weekend."""
    activity = np.ones(week)
    kind = rng.random()
    if kind < 0.55:
        activity[-2:] = 0.0
    elif kind < 0.7:
        activity[-1:] = 0.0
    elif kind < 0.85:
        activity = (rng.random(week) < rng.uniform(0.3, 0.9)).astype(float)
    if rng.random() < 0.3:  # the quiet days work part of the time, or at a lower level
        activity = np.maximum(activity, rng.uniform(0.1, 0.7, week) * (rng.random(week) < 0.6))
    if rng.random() < 0.25:
        activity = np.roll(activity, int(rng.integers(week)))
    return activity


def day_activity(rng: Rng, clock: Clock, off_rate: float) -> tuple[Array, Array]:
    """Activity of each day number and the flag of unplanned or holiday days, both of shape (days,)."""
    planned = work_week(rng, clock.week)[clock.weekdays]
    off = rng.random(clock.days) < off_rate
    extra = rng.random(clock.days) < off_rate / 3
    if rng.random() < 0.08 and clock.days > 6:  # a shutdown of several days
        first = int(rng.integers(clock.days))
        off[first : first + int(rng.integers(2, 8))] = True
    activity = np.where(off, 0.0, np.where(extra, 1.0, planned))
    return activity, (off | extra).astype(float)


def shift_block(rng: Rng, clock: Clock, activity: Array, start: float, length: float) -> Array:
    """Level of one daily block of work, running past midnight where it must; edges jitter by day."""
    jitter = 0.0 if rng.random() < 0.4 else log_uniform(rng, 0.003, 0.05)
    starts = start + jitter * rng.standard_normal(clock.days)
    ends = starts + length + jitter * rng.standard_normal(clock.days)
    ends = ends + (rng.random(clock.days) < rng.choice([0.0, 0.1])) * rng.uniform(0.0, 0.3, clock.days)
    today, x = clock.day_number, clock.phase
    now = activity[today] * ((x >= starts[today]) & (x < ends[today]))
    late = activity[today - 1] * (x + 1.0 < ends[today - 1])
    block: Array = np.maximum(now, late)
    return block


def running_level(rng: Rng, clock: Clock) -> Array:
    """Positive level of a plant while it runs: daily shape, breaks, day-to-day level and process noise."""
    shape = 1.0 + rng.uniform(0.0, 0.4) * cycle_profile(rng, clock.day)[clock.slot]
    for _ in range(int(rng.integers(0, 3))):
        at, width = rng.uniform(0.2, 0.9), rng.uniform(0.015, 0.06)
        shape = shape * np.where(np.abs(clock.phase - at) < width, rng.uniform(0.05, 0.8), 1.0)
    daily = np.exp(rng.uniform(0.0, 0.35) * smooth_noise(rng, clock.days, rng.uniform(0.0, 0.9)))
    if rng.random() < 0.3:  # weekdays differ in level
        daily = daily * rng.uniform(0.5, 1.3, clock.week)[clock.weekdays]
    level = np.maximum(shape, 0.05) * daily[clock.day_number]
    level = level * np.maximum(0.02, 1.0 + log_uniform(rng, 0.02, 0.5) * any_noise(rng, clock.n))
    if rng.random() < 0.3:  # a furnace switching between two levels while the plant runs
        low = telegraph(rng, clock.n, rng.uniform(0.1, 0.6), rng.uniform(0.0, 0.9))
        level = level * np.where(low > 0, rng.uniform(0.1, 0.7), 1.0)
    return level


def plant(rng: Rng, clock: Clock) -> Draw:
    """Power of a plant: idle at night and on days off, blocks of work on the others, noise in proportion."""
    activity, special = day_activity(rng, clock, day_off_rate(rng))
    start, length = rng.uniform(0.05, 0.5), rng.uniform(0.2, 0.7)
    work = shift_block(rng, clock, activity, start, length)
    if rng.random() < 0.5:  # a second, mostly lighter shift after the first
        second = shift_block(rng, clock, activity, start + length, rng.uniform(0.1, 0.35))
        work = np.maximum(work, rng.uniform(0.2, 1.0) * second)
    if rng.random() < 0.1:  # the schedule starts or ends within the window
        work = work * (level_shifts(rng, clock.n) >= 0)
    if rng.random() < 0.4:
        width = int(rng.integers(2, 6))
        work = np.convolve(work, np.ones(width) / width, mode="same")
    idle = rng.uniform(0.01, 0.3) * (1.0 + rng.uniform(0.0, 0.4) * any_noise(rng, clock.n))
    values = np.maximum(idle, 0.0) + work * running_level(rng, clock)
    return Draw(values, known=[special[clock.day_number], np.round(work * 2.0)], observed=[])


def seasonal(rng: Rng, clock: Clock) -> Draw:
    """Daily profiles that change by weekday, with drifting amplitude, trend and noise, summed or multiplied."""
    activity, special = day_activity(rng, clock, day_off_rate(rng))
    quiet = (activity < 0.5)[clock.day_number]
    busy_profile, quiet_profile = cycle_profile(rng, clock.day), cycle_profile(rng, clock.day)
    blend = rng.choice([0.0, 0.5, 0.9])
    quiet_profile = blend * busy_profile + (1.0 - blend) * quiet_profile
    if rng.random() < 0.35:
        quiet = np.zeros(clock.n, dtype=bool)
    values = np.where(quiet, quiet_profile[clock.slot], busy_profile[clock.slot])
    values = values - quiet * rng.uniform(-0.5, 2.0)
    if rng.random() < 0.3:
        values = values + rng.uniform(0.1, 1.0) * rng.standard_normal(clock.week)[clock.weekday]
    if rng.random() < 0.3:  # a whole weekly profile, rough or smooth
        weekly = cycle_profile(rng, clock.day * clock.week)
        values = values + rng.uniform(0.3, 2.0) * weekly[clock.step % weekly.size]
    if rng.random() < 0.3:
        values = values * np.exp(rng.uniform(0.1, 0.6) * spectral(rng, clock.n))
    noise = log_uniform(rng, 0.01, 1.0) * any_noise(rng, clock.n)
    values = values + noise
    if rng.random() < 0.4:  # multiplicative
        values = np.exp(rng.uniform(0.2, 0.9) * values)
    slow = trend(rng, clock.n) if rng.random() < 0.5 else random_walk(rng, clock.n)
    values = values + (rng.random() < 0.4) * rng.uniform(0.1, 2.0) * slow
    return Draw(values, known=[special[clock.day_number], quiet.astype(float)])


def statistic(rng: Rng, clock: Clock) -> Draw:
    """A figure of an office or a shop: a growing level times a slowly changing season, with little noise."""
    season = cycle_profile(rng, clock.day)[clock.slot]
    if rng.random() < 0.5:  # the season changes from cycle to cycle
        later = cycle_profile(rng, clock.day)[clock.slot]
        turn = rng.uniform(0.0, 0.6) * np.linspace(0.0, 1.0, clock.n)
        season = (1.0 - turn) * season + turn * later
    size = rng.uniform(0.0, 0.1) if rng.random() < 0.15 else log_uniform(rng, 0.05, 0.6)
    noise = size * log_uniform(rng, 0.02, 0.7) * any_noise(rng, clock.n)
    if rng.random() < 0.5:
        noise = noise + size * rng.uniform(0.0, 1.5) * yearly(rng, clock) * (clock.day != 12)
    slope = log_uniform(rng, 0.02, 1.0) * rng.choice([-1.0, 1.0, 1.0])
    drift = log_uniform(rng, 0.003, 0.1) * np.cumsum(any_noise(rng, clock.n)) / np.sqrt(clock.day)
    level = slope * trend(rng, clock.n) * (rng.random() < 0.8) + drift * (rng.random() < 0.7)
    out = (rng.random(clock.n) < rng.choice([0.0, 0.02])) * rng.standard_normal(clock.n) * size * 3
    total = level + size * season + noise + out
    return Draw(np.exp(total) if rng.random() < 0.7 else total)


def footfall(rng: Rng, clock: Clock) -> Draw:
    """Visits by day: a nearly exact week, holidays that look like its quietest day, a slow level, a yearly wave."""
    week = work_week(rng, clock.day) if rng.random() < 0.6 else rng.uniform(0.2, 1.0, clock.day)
    week = np.maximum(week, rng.uniform(0.05, 0.7)) * np.exp(rng.uniform(0.0, 0.15) * rng.standard_normal(clock.day))
    closed = rng.random(clock.n) < rng.choice([0.0, 0.01, 0.03])
    values = np.where(closed, week.min() * rng.uniform(0.3, 1.1), week[clock.slot])
    slow = rng.uniform(0.0, 0.15) * spectral(rng, clock.n) + rng.uniform(0.0, 0.2) * yearly(rng, clock)
    slow = slow + rng.uniform(-0.6, 0.6) * trend(rng, clock.n)
    noise = log_uniform(rng, 0.01, 0.25) * any_noise(rng, clock.n)
    return Draw(values * np.exp(slow + noise), known=[closed.astype(float)])


def daylight(rng: Rng, clock: Clock) -> Draw:
    """Sunlight: zero at night, a clear-sky envelope of seasonal day length, thinned by clouds."""
    season = 2 * np.pi * (clock.step / clock.day / 365.0 + rng.random())
    length = 0.5 + rng.uniform(0.0, 0.17) * np.sin(season)
    height = np.cos(np.pi * (clock.phase - rng.uniform(0.45, 0.55)) / length)
    up = np.abs(clock.phase - 0.5) < length / 2 + 0.05
    above = np.where(up, np.maximum(height, 0.0), 0.0) * (length + 0.5)  # of the atmosphere
    clear = above ** rng.uniform(0.8, 1.7)
    hours = smooth_noise(rng, clock.n, rng.uniform(0.7, 0.98))
    daily = smooth_noise(rng, clock.days, rng.uniform(0.0, 0.8))[clock.day_number]
    cloud = 1.0 / (1.0 + np.exp(-(rng.uniform(0.3, 2.0) * hours + rng.uniform(0.3, 2.0) * daily + rng.normal())))
    values = clear * (1.0 - rng.uniform(0.2, 0.95) * cloud)
    if rng.random() < 0.15:
        values = np.minimum(values, rng.uniform(0.5, 0.9) * values.max())
    heat = smooth_noise(rng, clock.n, 0.95) + 2.0 * (clear - clear.mean()) - cloud
    return Draw(values, known=[above], observed=[cloud + 0.1 * any_noise(rng, clock.n), heat])


def counts(rng: Rng, clock: Clock) -> Draw:
    """Non-negative counts, often zero, at a rate that may follow the season."""
    rate = log_uniform(rng, 0.03, 20.0) * np.exp(rng.uniform(0.0, 0.8) * standardise(seasonal(rng, clock).values))
    if rng.random() < 0.5:  # over-dispersed
        shape = rng.uniform(0.5, 5.0)
        rate = rate * rng.gamma(shape, 1.0 / shape, clock.n)
    return Draw(rng.poisson(np.minimum(rate, 1e4)).astype(float))


def free(rng: Rng, clock: Clock) -> Draw:
    """A process without a season: kernels, walks, noise, trends and level shifts."""
    parts = [spectral, random_walk, any_noise, heavy_noise, trend, level_shifts]
    pick = rng.choice(len(parts), int(rng.integers(1, 4)), replace=False, p=[0.35, 0.2, 0.15, 0.1, 0.1, 0.1])
    values = np.zeros(clock.n)
    for index in pick:
        values = values + log_uniform(rng, 0.2, 2.0) * parts[int(index)](rng, clock.n)
    return Draw(values + log_uniform(rng, 0.003, 0.3) * rng.standard_normal(clock.n))


Family = Callable[[Rng, Clock], Draw]
SUB_DAILY: tuple[tuple[Family, float], ...] = (
    (plant, 0.31),
    (seasonal, 0.31),
    (daylight, 0.19),
    (counts, 0.06),
    (statistic, 0.04),
    (free, 0.09),
)
COARSE: tuple[tuple[Family, float], ...] = (
    (statistic, 0.45),
    (footfall, 0.25),
    (seasonal, 0.12),
    (counts, 0.05),
    (free, 0.13),
)


def any_draw(rng: Rng, clock: Clock) -> Draw:
    """Draw from one family of those that fit the clock: a day of steps, or days, weeks and months."""
    coarse = clock.day < 24 or (clock.day, clock.week) == (52, 10)
    families, weights = zip(*(COARSE if coarse else SUB_DAILY), strict=True)
    family: Family = families[int(rng.choice(len(families), p=weights))]
    return family(rng, clock)
