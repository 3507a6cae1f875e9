"""The synthetic prior: groups of a target with covariates that help, mislead or do nothing, and batches of them.

Public ideas followed: KernelSynth and TSMixup (Ansari et al. 2024, arXiv 2403.07815), multivariatised groups
(Ansari et al. 2025, arXiv 2510.15821). Only numpy is needed, and a batch depends on (seed, index) alone.
"""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from families import Draw, any_draw
from numpy.typing import NDArray
from signals import Array, Clock, Rng, any_noise, log_uniform, sample_clock, spectral, standardise, telegraph

PATCH = 16
CONTEXTS = (48, 64, 96, 128, 144, 192, 256, 336, 384, 512, 672, 768, 1008, 1344, 1536, 2016, 2048)
CONTEXT_WEIGHTS = (3, 4, 5, 4, 5, 7, 4, 7, 4, 9, 11, 4, 5, 16, 4, 6, 2)
HORIZONS = (4, 8, 12, 16, 24, 28, 32, 48, 64, 96, 144, 192)
HORIZON_WEIGHTS = (2, 3, 8, 6, 10, 6, 8, 12, 8, 22, 7, 8)
MAX_COVARIATES = 8


class Batch(TypedDict):
    """Model inputs: (rows, context) and (rows, horizon) float32 arrays, group ids of shape (rows,)."""

    context: NDArray[np.float32]
    future_target: NDArray[np.float32]
    future_covariates: NDArray[np.float32]
    group_ids: NDArray[np.int64]
    num_output_patches: int


@dataclass(frozen=True)
class Group:
    """Series of one task, each of shape (n,): targets, covariates known only in the past, and known ahead."""

    targets: list[Array]
    past: list[Array]
    known: list[Array]

    @property
    def rows(self) -> list[Array]:
        """All series in the order of the library: targets, past-only, known."""
        return [*self.targets, *self.past, *self.known]


def calendar(clock: Clock) -> list[Array]:
    """Calendar covariates: slot of the day, weekday code, weekend flag, and their sines and cosines."""
    day, week = 2 * np.pi * clock.phase, 2 * np.pi * clock.weekday / clock.week
    codes = [clock.slot.astype(float), clock.weekday.astype(float), (clock.weekday >= clock.week - 2).astype(float)]
    return [*codes, np.sin(day), np.cos(day), np.sin(week), np.cos(week)]


def some(rng: Rng, items: list[Array], chance: float) -> list[Array]:
    """Keep each item with probability `chance`."""
    return [item for item in items if rng.random() < chance]


def respond(rng: Rng, driver: Array) -> Array:
    """Response of a target to a driver: linear in half of the cases, else bent or a threshold; now and then late."""
    lag = 0 if rng.random() < 0.65 else int(log_uniform(rng, 1, 49))
    x = np.roll(driver, lag)
    x[:lag] = x[lag]
    kind = rng.random()
    if kind < 0.12:
        x = np.maximum(x, rng.normal(0.0, 0.5))
    elif kind < 0.24:
        x = (x - rng.normal(0.0, 1.0)) ** 2
    elif kind < 0.38:
        x = np.tanh(rng.uniform(0.5, 3.0) * x)
    elif kind < 0.48:
        x = (x > rng.normal(0.0, 0.7)).astype(float)
    return standardise(x)


def sample_driver(rng: Rng, clock: Clock) -> Array:
    """A standardised driver: a plan of levels, an on/off event series, noise of some memory, or any family."""
    kind = rng.random()
    if kind < 0.25:  # levels held for a while
        edges = np.cumsum(rng.random(clock.n) < 1.0 / log_uniform(rng, 3, 60))
        levels = rng.standard_normal(edges[-1] + 1)
        return standardise((np.round(levels) if rng.random() < 0.3 else levels)[edges])
    if kind < 0.45:
        return standardise(telegraph(rng, clock.n, rng.uniform(0.03, 0.6), rng.uniform(0.3, 0.99)))
    if kind < 0.6:
        return standardise(any_noise(rng, clock.n))
    if kind < 0.75:
        return spectral(rng, clock.n)
    return standardise(any_draw(rng, clock).values)


def drive(rng: Rng, target: Array, clock: Clock, *, strength: float) -> tuple[Array, list[Array], list[Array]]:
    """Let one to three drivers move the target, mostly upwards; return it with the past-only and the known drivers.

    The effect of the first has a deviation of `strength`, what the target does by itself one of 1.
    """
    values = standardise(target)
    past: list[Array] = []
    known: list[Array] = []
    for number in range(int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))):
        driver = sample_driver(rng, clock)
        size = strength if number == 0 else log_uniform(rng, 0.1, 1.0) * strength
        values = values + rng.choice([-1.0, 1.0], p=[0.3, 0.7]) * size * respond(rng, driver)
        (known if rng.random() < 0.8 else past).append(driver)
    return values, past, known


def mix(rng: Rng, clock: Clock) -> Draw:
    """One draw, or in a fifth of the cases a random blend of two or three (TSMixup)."""
    draw = any_draw(rng, clock)
    if rng.random() > 0.2:
        return draw
    others = [standardise(any_draw(rng, clock).values) for _ in range(int(rng.integers(1, 3)))]
    weights = rng.dirichlet(np.full(len(others) + 1, 1.5))
    values = weights[0] * standardise(draw.values) + sum(w * x for w, x in zip(weights[1:], others, strict=True))
    return Draw(values, draw.known, draw.observed)


def warp(rng: Rng, values: Array) -> Array:
    """Leave the series alone in three of four cases, else bend, clip, round or turn it over."""
    kind = rng.random()
    if kind > 0.25:
        return values
    z = np.clip(standardise(values), -8.0, 8.0)
    if kind < 0.05:
        return np.exp(rng.uniform(0.3, 0.8) * z)
    if kind < 0.1:
        return np.maximum(z, np.quantile(z, rng.uniform(0.05, 0.6)))
    if kind < 0.15:
        return np.minimum(z, np.quantile(z, rng.uniform(0.5, 0.95)))
    if kind < 0.2:
        return np.round(z / rng.uniform(0.1, 1.0))
    return -z


def knock_out(rng: Rng, values: Array, context: int) -> Array:
    """Erase stretches or single steps of the context, or its beginning (a shorter history)."""
    kind = rng.random()
    if kind > 0.16:
        return values
    values = values.copy()
    if kind < 0.08:
        values[: int(rng.uniform(0.0, 0.8) * context)] = np.nan
    elif kind < 0.13:
        for _ in range(int(rng.integers(1, 4))):
            first = int(rng.integers(context))
            values[first : min(context, first + int(rng.uniform(0.01, 0.12) * context) + 1)] = np.nan
    else:
        values[:context][rng.random(context) < rng.uniform(0.01, 0.3)] = np.nan
    return values


def driven(rng: Rng, clock: Clock, draw: Draw) -> Group:
    """A target that mostly follows its drivers, with a stranger among them now and then."""
    target, past, known = drive(rng, draw.values, clock, strength=log_uniform(rng, 0.7, 10.0))
    if rng.random() < 0.2:
        known = [*known, sample_driver(rng, clock)]
    return Group([target], past, known)


def covariates(rng: Rng, clock: Clock, draw: Draw) -> Group:
    """A target with covariates, by one coin each: companions, drivers, calendar, forecasts, proxies, strangers."""
    target, past, known = draw.values, some(rng, draw.observed, 0.6), some(rng, draw.known, 0.75)
    if rng.random() < 0.3:
        target, driven_past, driven_known = drive(rng, target, clock, strength=log_uniform(rng, 0.2, 2.0))
        past, known = past + driven_past, known + driven_known
    if rng.random() < 0.5:
        known = known + some(rng, calendar(clock), rng.uniform(0.2, 0.8))
    if rng.random() < 0.15:  # somebody's forecast of the target
        known = [*known, standardise(target) + rng.uniform(0.05, 1.0) * any_noise(rng, clock.n)]
    if rng.random() < 0.15:  # measured along with the target, so never known ahead
        past = [*past, standardise(target) + rng.uniform(0.05, 1.0) * any_noise(rng, clock.n)]
    if rng.random() < 0.25:
        stranger = sample_driver(rng, sample_clock(rng, clock.n - 1, 1))
        (known if rng.random() < 0.6 else past).append(stranger)
    keep = rng.permutation(len(past) + len(known))[:MAX_COVARIATES]
    past_kept = [x for i, x in enumerate(past) if i in keep]
    return Group([target], past_kept, [x for i, x in enumerate(known, len(past)) if i in keep])


def joint(rng: Rng, clock: Clock, draw: Draw) -> Group:
    """Two to four targets that share a common signal, some of them later than others."""
    common = standardise(draw.values)
    targets = [draw.values]
    for _ in range(int(rng.integers(1, 4))):
        own = standardise(mix(rng, clock).values)
        share = rng.uniform(0.0, 1.0)
        targets.append(share * respond(rng, common) + (1.0 - share) * own)
    return Group(targets, [], [])


def sample_group(rng: Rng, context: int, horizon: int) -> Group:
    """Draw one task: a single series, a driven one, one with covariates of any worth, or several targets."""
    clock = sample_clock(rng, context, horizon)
    draw = mix(rng, clock)
    kind = rng.random()
    if kind < 0.48:
        group = Group([draw.values], [], [])
    elif kind < 0.69:
        group = driven(rng, clock, draw)
    elif kind < 0.95:
        group = covariates(rng, clock, draw)
    else:
        group = joint(rng, clock, draw)
    targets = [knock_out(rng, warp(rng, x), context) for x in group.targets]
    return Group(targets, [knock_out(rng, x, context) for x in group.past], group.known)


def shares(weights: tuple[int, ...]) -> Array:
    """Weights as probabilities."""
    return np.array(weights) / sum(weights)


def sample_batch(seed: int, index: int, tokens: int) -> Batch:
    """Draw batch `index` of a run: one context and horizon, as many rows as fill about `tokens` tokens."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    context = int(rng.choice(CONTEXTS, p=shares(CONTEXT_WEIGHTS)))
    horizon = int(rng.choice(HORIZONS, p=shares(HORIZON_WEIGHTS)))
    patches = -(-horizon // PATCH)
    room = max(MAX_COVARIATES + 1, min(192, tokens // (context // PATCH + 1 + patches)))
    groups: list[Group] = []
    while room > 0:
        group = sample_group(rng, context, horizon)
        if len(group.rows) <= room:
            groups.append(group)
            room -= len(group.rows)
    full = np.concatenate([np.stack(g.rows) for g in groups]).astype(np.float32)
    sizes = [len(g.rows) for g in groups]
    is_target = np.concatenate([np.arange(len(g.rows)) < len(g.targets) for g in groups])[:, None]
    is_known = np.concatenate([np.arange(len(g.rows)) >= len(g.rows) - len(g.known) for g in groups])[:, None]
    future = full[:, context:]
    return {
        "context": full[:, :context],
        "future_target": np.where(is_target, future, np.float32(np.nan)),
        "future_covariates": np.where(is_known, future, np.float32(np.nan)),
        "group_ids": np.repeat(np.arange(len(groups)), sizes),
        "num_output_patches": patches,
    }
