"""Learning curves carried on to the full budget, so that trials of any length can be compared in one model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from chronotune.config.space import Scalar
from chronotune.errors import WORKER_LOST

SHOWN_WAITING = 16
"""How many of the trials that run without a score yet are shown, the newest: with 150 a proposal takes a second."""


def at_full_budget(
    trials: Iterable[FrozenTrial], rungs: Sequence[int], absent: Mapping[str, tuple[Scalar, BaseDistribution]]
) -> list[FrozenTrial]:
    """Trials as if each had been trained to the end.

    The best score of a trial is carried on from its last rung by what the next ones brought in the median to the trials
    that reached them. Until then most are known by their first rungs alone, and those few that went on are no fair
    sample of the space. One that failed counts as much as the worst: else it would be proposed for ever.

    Args:
        trials: In any state. Those that run stay running until they have a score.
        rungs: Windows seen at which trials are scored, the last of them the full budget.
        absent: Value and distribution of parameters that not every trial has, for those without.
    """
    failed, scored, waiting = list[FrozenTrial](), list[tuple[FrozenTrial, list[float]]](), list[FrozenTrial]()
    for trial in trials:
        if trial.state == TrialState.FAIL:
            failed.append(trial)
        elif curve := _curve(trial, rungs):
            scored.append((trial, curve))
        elif not trial.state.is_finished():
            waiting.append(trial)
    steps = _steps([curve for _, curve in scored], len(rungs))
    expected = [(trial, curve[-1] + sum(steps[len(curve) :])) for trial, curve in scored]
    if expected:
        worst = max(score for _, score in expected)
        expected += [(trial, worst) for trial in failed if trial.user_attrs.get("reason") != WORKER_LOST]
    shown = [*expected, *((trial, None) for trial in waiting[-SHOWN_WAITING:])]
    return [
        create_trial(
            state=TrialState.RUNNING if score is None else TrialState.COMPLETE,
            value=score,
            params={**{name: value for name, (value, _) in absent.items()}, **trial.params},
            distributions={**{name: kind for name, (_, kind) in absent.items()}, **trial.distributions},
        )
        for trial, score in shown
    ]


def _curve(trial: FrozenTrial, rungs: Sequence[int]) -> list[float]:
    """The best score so far at each rung that a trial reached; empty if it was not scored by the first."""
    scores = {seen: score for seen, score in trial.intermediate_values.items() if math.isfinite(score)}
    if min(scores, default=math.inf) > rungs[0]:
        return []
    reached = [rung for rung in rungs if rung <= max(scores)]
    return [min(score for seen, score in scores.items() if seen <= rung) for rung in reached]


def _steps(curves: Sequence[Sequence[float]], rungs: int) -> list[float]:
    """What each rung brought in the median to the trials that reached it; nothing where none did."""
    return [
        median([curve[rung] - curve[rung - 1] for curve in curves if len(curve) > rung > 0] or [0.0])
        for rung in range(rungs)
    ]
