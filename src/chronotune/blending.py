"""Forecasts put together: the weighted mean of their quantiles, with weights that validation windows decide."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from chronotune.metrics import Floats

ROUNDS = 50
"""Steps of the selection: weights are found to about one in this many."""


def blend(forecasts: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """The weighted mean of quantile forecasts, level by level, sorted.

    Source: Vincent 1912; Lichtendahl, Grushka-Cockayne & Winkler 2013 ("Is it better to average probabilities or
    quantiles?"): the mean of quantiles stays as sharp as its members, that of probabilities does not.

    Args:
        forecasts: At least one, each of shape (windows, levels, horizon), ascending in the levels.
        weights: As many, not negative, their sum 1. A forecast of weight 0 is not looked at.

    Returns:
        Shape (windows, levels, horizon).
    """
    assert len(forecasts) == len(weights)
    mixed = sum(weight * np.asarray(one, float) for one, weight in zip(forecasts, weights, strict=True) if weight)
    return np.asarray(np.sort(mixed, axis=1))


def weigh(forecasts: Sequence[Floats], loss: Callable[[Floats], float], rounds: int = ROUNDS) -> tuple[float, ...]:
    """The weights with which the `blend` of some forecasts has the lowest loss.

    Ensemble selection (Caruana et al. 2004): begin with the best single forecast; in each round add the one, with
    replacement, whose addition leaves the lowest loss; the best of all rounds wins. So weights are not negative, their
    sum is 1, most are 0 where many forecasts are alike, and the blend is never worse than its best member.

    Args:
        forecasts: At least one, each of shape (windows, levels, horizon).
        loss: Of a forecast; one whose loss is not finite is never taken.
        rounds: How often one is added.

    Returns:
        A weight for each forecast.
    """
    singles = [_finite(loss(np.sort(one, axis=1))) for one in forecasts]
    usable = [number for number, value in enumerate(singles) if value < math.inf]
    first = int(np.argmin(singles))
    counts, lowest = np.eye(len(forecasts))[first], singles[first]
    best, total = counts, np.asarray(forecasts[first], float)
    for _ in range(rounds if len(usable) > 1 else 0):
        tried = {n: _finite(loss(np.sort(total + forecasts[n], axis=1) / (counts.sum() + 1))) for n in usable}
        chosen = min(tried, key=lambda number: tried[number])
        counts, total = counts + np.eye(len(forecasts))[chosen], total + forecasts[chosen]
        if tried[chosen] < lowest:
            best, lowest = counts, tried[chosen]
    return tuple(float(count / best.sum()) for count in best)


def composition(members: Mapping[str, float]) -> str:
    """What a blend is made of, in words: `70% best, 30% zero-shot`."""
    return ", ".join(f"{weight:.0%} {name}" for name, weight in members.items())


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
