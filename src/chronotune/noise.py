"""How far apart trials must be at a rung to mean something: their validation losses, paired by forecast origin.

A rung compares trials on the same origins, so what counts is the noise of their differences, not that of their scores.
The losses of all series at one origin are one observation: what happens at a time happens to all of them.
"""

from __future__ import annotations

import base64
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chronotune.metrics import Floats
from chronotune.records import TrialRecord

LOSSES = "losses"
"""Attribute of a result: its losses by origin, `packed`."""

ERRORS = 2.0
"""Standard errors that a difference must exceed: about 95 in 100 that are only noise do not."""


@dataclass(frozen=True)
class RungNoise:
    """What one rung can tell apart."""

    windows_seen: int
    origins: int
    trials: int
    """With a result there."""
    separates: float
    """Relative difference of the objective from which on a trial of the better half is told from the rung's best."""
    close: int
    """Trials, the best aside, that are not told from it."""


def by_origin(losses: Floats, origins: Sequence[int]) -> Floats:
    """Sum the additive losses of windows, shape (windows,), over those with the same origin, in order of origins."""
    _, place = np.unique(np.asarray(origins), return_inverse=True)
    return np.asarray(np.bincount(place, weights=np.asarray(losses, dtype=np.float64)), dtype=np.float64)


def packed(losses: Floats) -> str:
    """Losses as text: base64 of little-endian float32, 5.3 characters each. 10,000 trials at 3 rungs take 4 MB."""
    return base64.b64encode(np.asarray(losses).astype("<f4").tobytes()).decode("ascii")


def unpacked(text: str) -> NDArray[np.float64]:
    """What `packed` took."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float64)


def at_rungs(trials: Sequence[TrialRecord], objective: str) -> list[RungNoise]:
    """The noise at each rung that at least two trials have reached, by windows seen.

    Args:
        trials: Of one study; results without losses, as of earlier versions, are left out.
        objective: What the losses add up to; those of `rmse` are squared errors.
    """
    found: dict[int, list[Floats]] = defaultdict(list)
    for trial in trials:
        for result in trial.results:
            if text := result.attributes.get(LOSSES):
                found[result.windows_seen].append(unpacked(text))
    return [
        _rung(windows, np.stack(losses), objective)
        for windows, losses in sorted(found.items())
        if len(losses) > 1 and len(losses[0]) > 1
    ]


def _rung(windows_seen: int, losses: Floats, objective: str) -> RungNoise:
    """`losses` has shape (trials, origins)."""
    best, *others = losses[np.argsort(losses.sum(axis=1), kind="stable")]
    pairs = [difference(other, best, root=objective == "rmse") for other in others]
    rivals = pairs[: max(1, math.ceil(len(losses) / 2) - 1)]
    return RungNoise(
        windows_seen,
        len(best),
        len(losses),
        ERRORS * statistics.median(error for _, error in rivals),
        sum(1 for apart, error in pairs if apart <= ERRORS * error),
    )


def difference(one: Floats, best: Floats, *, root: bool = False) -> tuple[float, float]:
    """How much worse one forecast's loss is, relative to another's, and the standard error of that.

    Source: Cochran, Sampling Techniques, 1977, section 6.3: of a ratio r of two sums over n pairs the error is
    sqrt(n var(one - r best)) / sum(best); of its square root, half of that divided by sqrt(r).

    Args:
        one: Losses by origin, shape (origins,).
        best: The same of the other, with a sum above 0.
        root: The losses are squared errors, and the difference is that of their roots.

    Returns:
        Both infinite where the sum is 0 or a loss is not finite.
    """
    ratio, n = one.sum() / best.sum() if best.sum() > 0 else math.nan, len(best)
    error = math.sqrt(n * np.var(one - ratio * best, ddof=1)) / best.sum() if np.isfinite(ratio) else math.inf
    if not math.isfinite(error):
        return math.inf, math.inf
    return (math.sqrt(ratio) - 1, error / (2 * math.sqrt(ratio))) if root else (float(ratio - 1), float(error))


def sentence(rungs: Sequence[RungNoise]) -> str | None:
    """What the rungs can tell apart, for people; None when nothing is known of it."""
    if not rungs:
        return None
    told = [
        f"{it.close} of {it.trials - 1} others after {it.windows_seen} windows (about {it.separates:.2%} would tell)"
        for it in rungs
    ]
    return (
        f"validation noise: on {rungs[-1].origins} origins these cannot be told from the best of as many windows: "
        f"{', '.join(told)}"
    )
