"""Elementary synthetic signals: clocks, noises, profiles, trends and events.

Every function is pure given its generator and returns a float array with one value per step.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rng = np.random.Generator

# A kind of data: steps per day, days per week, weight, and the contexts in steps at which it is met.
# "Day" and "week" are the shorter and the longer cycle: seven days in a year of weeks, twelve months in ten years.
CLOCKS = (
    (96, 7, 0.24, 192, 4096),  # 15 minutes
    (24, 7, 0.20, 64, 4096),  # hours
    (48, 7, 0.12, 96, 4096),
    (144, 7, 0.02, 384, 4096),
    (288, 7, 0.04, 512, 4096),
    (7, 52, 0.22, 64, 4096),  # days
    (12, 10, 0.24, 48, 512),  # months
    (52, 10, 0.24, 64, 768),  # weeks
    (4, 10, 0.06, 48, 256),  # quarters
)
ODD_SHARE = 0.12  # of other cycles, of any length


@dataclass(frozen=True)
class Clock:
    """Where each of `n` steps lies in a cycle of `day` steps and a longer cycle of `week` days."""

    day: int
    week: int
    start: int
    n: int

    @cached_property
    def step(self) -> NDArray[np.int64]:
        """Absolute step numbers, shape (n,)."""
        return self.start + np.arange(self.n)

    @cached_property
    def slot(self) -> NDArray[np.int64]:
        """Step within the day, 0 to day - 1."""
        return self.step % self.day

    @cached_property
    def phase(self) -> Array:
        """Share of the day gone, in [0, 1)."""
        return self.slot / self.day

    @cached_property
    def day_number(self) -> NDArray[np.int64]:
        """Days since the day before the first step: 1 on the first day, so that 0 is "the day before"."""
        return self.step // self.day - self.start // self.day + 1

    @cached_property
    def days(self) -> int:
        """Number of days touched, the day before the first included."""
        return int(self.day_number[-1]) + 1

    @cached_property
    def weekdays(self) -> NDArray[np.int64]:
        """Weekday of each day number, shape (days,)."""
        return (self.start // self.day - 1 + np.arange(self.days)) % self.week

    @cached_property
    def weekday(self) -> NDArray[np.int64]:
        """Weekday of each step, shape (n,)."""
        return self.weekdays[self.day_number]


def sample_clock(rng: Rng, context: int, horizon: int) -> Clock:
    """Draw a clock that fits the context; in four of ten the forecast starts at the beginning of a day."""
    weights = np.array([weight * (low <= context <= high) for *_, weight, low, high in CLOCKS])
    weights = np.append(weights / weights.sum() * (1.0 - ODD_SHARE), ODD_SHARE)
    pick = int(rng.choice(len(weights), p=weights))
    if pick < len(CLOCKS):
        day, week = CLOCKS[pick][:2]
    else:
        day, week = int(log_uniform(rng, 3, 200)), int(rng.integers(2, 11))
    start = int(rng.integers(day, day * (week + 1)))
    if rng.random() < 0.4:
        start += -(start + context) % day
    return Clock(day, week, start, context + horizon)


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Draw a positive number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def standardise(x: Array) -> Array:
    """Shift and scale to mean 0 and deviation 1; a constant becomes zeros."""
    spread = x.std()
    return (x - x.mean()) / spread if spread > 1e-9 else np.zeros_like(x)


def smooth_noise(rng: Rng, n: int, phi: float) -> Array:
    """Unit-variance AR(1) noise of coefficient `phi`, shaped in the frequency domain."""
    padded = n + min(n, int(8 / (1.0 - phi + 1e-3)))  # cut the far end: the transform is circular
    gain = np.sqrt(1.0 - phi**2) / np.abs(1.0 - phi * np.exp(-2j * np.pi * np.fft.rfftfreq(padded)))
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(padded)) * gain, padded)[:n]


def heavy_noise(rng: Rng, n: int) -> Array:
    """White noise with Student tails of 2.5 to 8 degrees of freedom, deviation of order 1."""
    return np.clip(rng.standard_t(rng.uniform(2.5, 8.0), n), -12.0, 12.0)


def any_noise(rng: Rng, n: int) -> Array:
    """White, autocorrelated or heavy-tailed noise of deviation of order 1."""
    kind = rng.random()
    if kind < 0.3:
        return rng.standard_normal(n)
    if kind < 0.8:
        return smooth_noise(rng, n, rng.uniform(0.3, 0.97))
    return heavy_noise(rng, n)


def spectral(rng: Rng, n: int) -> Array:
    """Sample a sum of stationary kernels (smooth, rough, periodic) by their spectra, as a cheap KernelSynth."""
    freq = np.fft.rfftfreq(2 * n) * n + 1e-3
    power = np.zeros_like(freq)
    for _ in range(int(rng.integers(1, 4))):
        scale = log_uniform(rng, 0.005, 1.0)
        if rng.random() < 0.5:
            power += scale * np.exp(-((freq * scale) ** 2) / 2)
        else:
            power += scale / (1.0 + (freq * scale) ** 2) ** rng.uniform(0.7, 2.5)
    shaped = np.fft.rfft(rng.standard_normal(2 * n)) * np.sqrt(power)
    return standardise(np.fft.irfft(shaped, 2 * n)[:n])


def random_walk(rng: Rng, n: int) -> Array:
    """Integrated noise, now and then mean-reverting, standardised."""
    return standardise(np.cumsum(any_noise(rng, n)) - rng.uniform(0, 0.05) * np.arange(n))


def level_shifts(rng: Rng, n: int) -> Array:
    """A piecewise constant level with one to four jumps."""
    jumps = np.zeros(n)
    count = int(rng.integers(1, 5))
    jumps[rng.integers(0, n, count)] = rng.standard_normal(count)
    return np.cumsum(jumps)


def trend(rng: Rng, n: int) -> Array:
    """A line, a power, a saturating or a piecewise linear trend from 0 to about +-1."""
    t = np.linspace(0.0, 1.0, n)
    kind = int(rng.integers(4))
    if kind == 0:
        shape = t
    elif kind == 1:
        shape = t ** rng.uniform(0.5, 3.0)
    elif kind == 2:
        shape = 1.0 - np.exp(-t * rng.uniform(1.0, 6.0))
    else:
        shape = t + rng.uniform(-2.0, 2.0) * np.maximum(0.0, t - rng.random())
    return float(rng.choice([-1.0, 1.0])) * shape


def telegraph(rng: Rng, n: int, share: float, persistence: float) -> Array:
    """Switch between 0 and 1: 1 for about `share` of the steps, in runs that grow with `persistence`."""
    wave = smooth_noise(rng, n, persistence)
    return (wave > np.quantile(wave, 1.0 - share)).astype(float)


def yearly(rng: Rng, clock: Clock) -> Array:
    """A smooth yearly wave, deviation of order 1, whose period need not be a whole number of steps."""
    period = {7: 365.25, 52: 52.18}.get(clock.day, float(clock.day * clock.week))
    angle = 2 * np.pi * (clock.step / period)
    waves = range(1, int(rng.integers(2, 5)))
    return sum((rng.standard_normal() / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in waves), np.zeros(1))


def cycle_profile(rng: Rng, size: int) -> Array:
    """One cycle of `size` steps, deviation 1: a few harmonics, a rough curve, or a mixture of peaks."""
    x = np.arange(size) / size
    kind = rng.random()
    if kind < 0.5:
        order = np.arange(1, int(rng.integers(2, max(3, min(9, size // 2)))) + 1)
        weight = rng.standard_normal(order.size) / order ** rng.uniform(0.0, 1.5)
        shape = np.cos(2 * np.pi * (np.outer(x, order) + rng.random(order.size))) @ weight
    elif kind < 0.75:
        shape = smooth_noise(rng, size, rng.uniform(0.0, 0.95))
    else:
        gap = (x[:, None] - rng.random(int(rng.integers(1, 5))) + 0.5) % 1.0 - 0.5
        shape = np.exp(-((gap / rng.uniform(0.01, 0.15)) ** 2)).sum(axis=1)
    return standardise(shape)
