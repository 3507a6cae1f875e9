"""Trials of any length, compared as if all had been trained to the end."""

from __future__ import annotations

import math
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from chronotune.errors import WORKER_LOST
from chronotune.extrapolation import SHOWN_WAITING, at_full_budget

RUNGS = (10, 30, 90)
RATE = FloatDistribution(0, 1)
RANK = CategoricalDistribution([2, 4, 8])


def _trial(scores: dict[int, float], state: TrialState = TrialState.PRUNED, **params: Any) -> FrozenTrial:
    kinds = {"rate": RATE, "rank": RANK}
    values = {"rate": 0.5, **params}
    return create_trial(
        state=state,
        value=min(scores.values(), default=None) if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        params=values,
        distributions={name: kinds[name] for name in values},
        intermediate_values=scores,
    )


def _values(*trials: FrozenTrial) -> list[float | None]:
    return [trial.value for trial in at_full_budget(trials, RUNGS, {})]


def test_a_stopped_trial_is_carried_on_by_what_the_rungs_brought_to_others() -> None:
    """The second rung brought 2, 1 and 3, in the median 2; the third 1.5."""
    whole = _trial({10: 9, 30: 7, 90: 5.5}, TrialState.COMPLETE)
    halves = _trial({10: 6, 30: 5}), _trial({10: 8, 30: 5})
    first = _trial({10: 10})
    assert _values(whole, *halves, first) == pytest.approx([5.5, 3.5, 3.5, 6.5])


def test_where_none_went_on_nothing_is_added() -> None:
    """First rungs are compared with first rungs."""
    assert _values(_trial({10: 3}), _trial({10: 2})) == [3, 2]


def test_the_best_score_so_far_counts() -> None:
    """A rung that was worse brought nothing: it is not what would be exported."""
    assert _values(_trial({10: 3, 30: 4, 90: 5}, TrialState.COMPLETE), _trial({10: 7})) == [3, 7]


def test_a_running_trial_counts_by_what_it_reached_and_else_stays_running() -> None:
    """A Gaussian process expects nothing new where somebody is at work."""
    begun, fresh = _trial({10: 2}, TrialState.RUNNING), _trial({}, TrialState.RUNNING, rate=0.25)
    seen = at_full_budget([begun, fresh], RUNGS, {})
    assert [(one.state, one.value) for one in seen] == [(TrialState.COMPLETE, 2), (TrialState.RUNNING, None)]
    assert seen[1].params == {"rate": 0.25}


def test_of_many_that_wait_for_a_score_the_newest_are_shown() -> None:
    """Each makes a proposal dearer."""
    waiting = [_trial({}, TrialState.RUNNING, rate=n / 100) for n in range(40)]
    seen = at_full_budget([_trial({10: 2}), *waiting], RUNGS, {})
    assert [one.params["rate"] for one in seen] == [0.5, *(n / 100 for n in range(40 - SHOWN_WAITING, 40))]


def test_a_trial_that_failed_counts_as_much_as_the_worst() -> None:
    """Also after a good result. A lost worker is not the point's fault; without a score there is no worst."""
    failed, late, lost = (_trial(scores, TrialState.FAIL) for scores in ({}, {10: 1.0}, {}))
    lost.set_user_attr("reason", WORKER_LOST)
    assert _values(failed, _trial({10: 2}), late, lost, _trial({10: 3})) == [2, 3, 3, 3]
    assert _values(failed, late) == []


def test_a_curve_without_the_first_rung_is_no_curve() -> None:
    """It cannot be compared with the others."""
    assert _values(_trial({20: 1, 90: 1}, TrialState.COMPLETE), _trial({10: 3})) == [3]


def test_a_score_that_is_no_number_is_no_score() -> None:
    """It would haunt the sampler."""
    assert _values(_trial({10: 2, 30: math.nan}, TrialState.RUNNING)) == [2]


def test_a_parameter_that_does_not_apply_gets_its_stand_in() -> None:
    """So that the model holds every parameter; those of a trial stay its own."""
    seen = at_full_budget([_trial({10: 2}), _trial({10: 3}, rank=8)], RUNGS, {"rank": (4, RANK)})
    assert [one.params["rank"] for one in seen] == [4, 8]
    assert all(one.distributions["rank"] == RANK for one in seen)
