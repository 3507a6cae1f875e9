"""Learning curves carried on to the full budget, so that trials of any length can be compared in one model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from chronotune.config.space import Scalar


def at_full_budget(
    trials: Iterable[FrozenTrial], rungs: Sequence[int], absent: Mapping[str, tuple[Scalar, BaseDistribution]]
) -> list[FrozenTrial]:
    """Trials as if each had been trained to the end.

    The best score of a trial is carried on from its last rung by what the next ones brought in the median to the trials
    that reached them. Until then most are known by their first rungs alone, and those few that went on are no fair
    sample of the space.

    Args:
        trials: In any state. Those that failed are left out; without a result they stay running.
        rungs: Windows seen at which trials are scored, the last of them the full budget.
        absent: Value and distribution of parameters that not every trial has, for those without.
    """
    curves = [(trial, _curve(trial, rungs)) for trial in trials if trial.state != TrialState.FAIL]
    steps = _steps([curve for _, curve in curves], len(rungs))
    return [
        create_trial(
            state=TrialState.COMPLETE if curve else TrialState.RUNNING,
            value=curve[-1] + sum(steps[len(curve) :]) if curve else None,
            params={**{name: value for name, (value, _) in absent.items()}, **trial.params},
            distributions={**{name: kind for name, (_, kind) in absent.items()}, **trial.distributions},
        )
        for trial, curve in curves
    ]


def _curve(trial: FrozenTrial, rungs: Sequence[int]) -> list[float]:
    """The best score so far at each rung that a trial reached."""
    scores = {seen: score for seen, score in trial.intermediate_values.items() if math.isfinite(score)}
    reached = [rung for rung in rungs if rung <= max(scores, default=0)]
    return [min(score for seen, score in scores.items() if seen <= rung) for rung in reached]


def _steps(curves: Sequence[Sequence[float]], rungs: int) -> list[float]:
    """What each rung brought in the median to the trials that reached it; nothing where none did."""
    return [
        median([curve[rung] - curve[rung - 1] for curve in curves if len(curve) > rung > 0] or [0.0])
        for rung in range(rungs)
    ]
