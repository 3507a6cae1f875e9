"""The sampler of proposals: Optuna's own ones, without a look at every trial for what is the same in all."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from chronotune import sampler as proposing
from chronotune.config.search import SearchConfig

STATES = (TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING)


def _conditional(trial: optuna.Trial) -> dict[str, Any]:
    """Parameters that come in four combinations, which overlap."""
    kind, found = trial.suggest_categorical("kind", ["a", "b", "c"]), dict[str, Any]()
    found["rate"] = trial.suggest_float("rate", 1e-5, 1e-2, log=True)
    if kind in "ab":
        found["rank"] = trial.suggest_int("rank", 2, 16)
    if kind in "bc":
        found["dropout"] = trial.suggest_float("dropout", 0, 0.5)
    if kind == "b" and found["rank"] > 8:
        found["alpha"] = trial.suggest_categorical("alpha", [8, 16])
    return {"kind": kind, **found}


def _history(count: int, seed: int) -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for number in range(count):
        trial = study.ask()
        score = sum(value for value in _conditional(trial).values() if isinstance(value, float))
        trial.report(score, step=1 + number % 3)
        match STATES[(number * 3 + seed) % len(STATES)]:
            case TrialState.COMPLETE:
                study.tell(trial, score)
            case TrialState.RUNNING:
                pass
            case state:
                study.tell(trial, state=state)
    return study


@pytest.mark.parametrize("seed", range(6))
def test_it_proposes_what_optunas_does(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Trial after trial, with parameters that are not in every trial, of whatever state."""
    ours, theirs = _history(20, seed), _history(20, seed)
    config, proposed = SearchConfig(startup_trials=3), list[tuple[Any, Any]]()
    for number in range(20, 32):
        ours.sampler = proposing.sampler(config, seed, number)
        with monkeypatch.context() as patch:
            patch.setattr(proposing, "_TPESampler", optuna.samplers.TPESampler)
            theirs.sampler = proposing.sampler(config, seed, number)
        told = []
        for study in (ours, theirs):
            trial = study.ask()
            told.append(_conditional(trial))
            study.tell(trial, float(told[-1]["rate"]))
        proposed.append((told[0], told[1]))
    assert [one for one, _ in proposed] == [other for _, other in proposed]
    assert [trial.system_attrs for trial in ours.trials] == [trial.system_attrs for trial in theirs.trials]


def test_groups_are_found_in_one_trial_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their number: of hundreds, a few have parameters that no earlier one has."""
    seen, found = list[int](), optuna.samplers.TPESampler.infer_relative_search_space

    def noted(self: Any, study: optuna.Study, trial: Any) -> Any:
        seen.append(len(study.trials))
        return found(self, study, trial)

    monkeypatch.setattr(optuna.samplers.TPESampler, "infer_relative_search_space", noted)
    study = _history(60, 0)
    study.sampler = proposing.sampler(SearchConfig(), 0, 60)
    _conditional(study.ask())
    assert seen == [4]
