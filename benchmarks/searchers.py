"""The ways of searching that `search.py` compares, each told what it would be told in use."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import optuna
from curves import Table
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch
from simulation import Way

from chronotune.config.recipe import Recipe
from chronotune.config.space import Choice, Fixed, Hyperparameters
from chronotune.records import BUDGET, OBJECTIVE, ZERO_SHOT
from chronotune.search import FIRST, IMPORTS, StudySearcher, scheduler
from chronotune.study import Result, Study

ENDLESS = 1_000_000
"""Trials: whoever simulates decides when to stop."""


def draw(recipe: Recipe) -> Callable[[Any], Hyperparameters]:
    """The define-by-run function of a recorded space. Learning rates are steps of a ladder, so their order is known."""

    def suggest(name: str, values: list[Any], trial: Any) -> Any:
        if name == "learning_rate":
            return values[trial.suggest_int(name, 0, len(values) - 1)]
        return trial.suggest_categorical(name, values)

    def suggest_all(trial: Any) -> Hyperparameters:
        chosen: dict[str, Any] = {}
        for name, parameter in recipe.search_space.parameters.items():
            if not parameter.applies(chosen):
                continue
            assert isinstance(parameter, Choice | Fixed), name
            chosen[name] = suggest(name, parameter.values, trial) if isinstance(parameter, Choice) else parameter.value
        return Hyperparameters(**chosen)

    return suggest_all


class _OnTheLadder(StudySearcher):
    """Our searcher over a recorded space."""

    def __init__(self, study: Study, recipe: Recipe, asha: TrialScheduler, workers: int) -> None:
        super().__init__(study, recipe, asha, wanted=ENDLESS, slots=lambda: workers)
        self._draw = draw(recipe)
        rates = recipe.search_space.parameters["learning_rate"]
        assert isinstance(rates, Choice)
        steps = {rate: step for step, rate in enumerate(rates.values)}
        self._points = [{**point, "learning_rate": steps[point["learning_rate"]]} for point in self._points]


class Ours:
    """What a sweep does: our searcher and scheduler over a study, here in memory."""

    def __init__(self, recipe: Recipe, workers: int) -> None:
        storage: Any = optuna.storages.InMemoryStorage()
        self._study = Study(storage, optuna.create_study(storage=storage))
        for key in (ZERO_SHOT, FIRST, IMPORTS):  # scored already, and nothing to begin with
            self._study.note(key, [])
        self._asha = scheduler(recipe)
        self._searcher = _OnTheLadder(self._study, recipe, self._asha, workers)
        self._numbers: dict[str, int] = {}

    def suggest(self, trial: str) -> Hyperparameters | None:
        """As Ray Tune asks, which adds the trial to the scheduler."""
        proposal = self._searcher.suggest(trial)
        if proposal is None or proposal == Searcher.FINISHED:  # every point was tried
            return None
        assert isinstance(proposal, dict), proposal
        self._numbers[trial] = proposal["number"]
        self._asha.on_trial_add(None, self._as_tune_has(trial))
        return Hyperparameters(**proposal["hyperparameters"])

    def report(self, trial: str, windows_seen: int, score: float) -> bool:
        """The scheduler first, then the record, as in a sweep."""
        result = {BUDGET: windows_seen, OBJECTIVE: score}
        decision = self._asha.on_trial_result(None, self._as_tune_has(trial), result)
        self._study.record(self._numbers[trial], Result(windows_seen, score, {}))
        return bool(decision == TrialScheduler.CONTINUE)

    def _as_tune_has(self, trial: str) -> SimpleNamespace:
        return SimpleNamespace(trial_id=trial, config={"number": self._numbers[trial]})

    def end(self, trial: str, windows_seen: int, score: float) -> None:
        """The study is told the best score; a diverged training fails with its reason."""
        if math.isnan(score):
            self._searcher.on_trial_complete(trial, {"failed": "diverged"})
            return
        self._study.record(self._numbers[trial], Result(windows_seen, score, {}))
        self._searcher.on_trial_complete(trial, {BUDGET: windows_seen, OBJECTIVE: score})


class RayStock:
    """OptunaSearch and ASHAScheduler as Ray Tune connects them: a stopped trial is told as a finished one."""

    def __init__(self, recipe: Recipe, seed: int) -> None:
        suggest = draw(recipe)

        def space(trial: Any) -> dict[str, Any]:
            return {"point": suggest(trial)}

        self._searcher = OptunaSearch(space, metric=OBJECTIVE, mode="min", seed=seed)
        self._asha = ASHAScheduler(
            time_attr=BUDGET,
            metric=OBJECTIVE,
            mode="min",
            max_t=recipe.rungs[-1],
            grace_period=recipe.rungs[0],
            reduction_factor=recipe.early_stopping.reduction,
        )

    def suggest(self, trial: str) -> Hyperparameters | None:
        """The searcher's proposal."""
        proposal = self._searcher.suggest(trial)
        assert proposal is not None
        assert proposal is not Searcher.FINISHED
        self._asha.on_trial_add(None, SimpleNamespace(trial_id=trial))
        point: Hyperparameters = proposal["point"]
        return point

    def report(self, trial: str, windows_seen: int, score: float) -> bool:
        """Only what does not stop a trial reaches the searcher as a result."""
        result = {BUDGET: windows_seen, OBJECTIVE: score, "training_iteration": windows_seen}
        goes_on = bool(self._asha.on_trial_result(None, SimpleNamespace(trial_id=trial), result) == "CONTINUE")
        if goes_on:
            self._searcher.on_trial_result(trial, result)
        return goes_on

    def end(self, trial: str, windows_seen: int, score: float) -> None:
        """Always as complete, with the last score; one of NaN stays running in the study for ever."""
        result = {BUDGET: windows_seen, OBJECTIVE: score, "training_iteration": windows_seen}
        self._searcher.on_trial_complete(trial, result)


class PlainOptuna:
    """`study.optimize` with Optuna's defaults: TPE, and with `prunes` the median pruner."""

    def __init__(self, recipe: Recipe, seed: int, *, prunes: bool) -> None:
        pruner = optuna.pruners.MedianPruner() if prunes else optuna.pruners.NopPruner()
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruner)
        self._draw, self._full, self._trials = draw(recipe), recipe.rungs[-1], dict[str, optuna.Trial]()

    def suggest(self, trial: str) -> Hyperparameters | None:
        """The next trial of the study."""
        self._trials[trial] = self._study.ask()
        return self._draw(self._trials[trial])

    def report(self, trial: str, windows_seen: int, score: float) -> bool:
        """An objective that raises TrialPruned when it should."""
        self._trials[trial].report(score, windows_seen)
        return not self._trials[trial].should_prune()

    def end(self, trial: str, windows_seen: int, score: float) -> None:
        """Its last value; an objective that returns NaN has failed."""
        if math.isnan(score):
            self._study.tell(self._trials[trial], state=optuna.trial.TrialState.FAIL)
        elif windows_seen < self._full:
            self._study.tell(self._trials[trial], state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(self._trials[trial], score)


class SyneTune:
    """Syne Tune's asynchronous successive halving with random configurations; needs `pip install syne-tune`."""

    def __init__(self, recipe: Recipe, seed: int) -> None:
        from syne_tune.config_space import choice
        from syne_tune.optimizer.baselines import ASHA

        logging.getLogger("syne_tune").setLevel(logging.CRITICAL)  # it warns of each construction and failure
        self._recipe = recipe
        searched = {n: p.values for n, p in recipe.search_space.parameters.items() if isinstance(p, Choice)}
        self._asha = ASHA(
            {name: choice(values) for name, values in searched.items()},
            metric=OBJECTIVE,
            time_attr=BUDGET,
            max_t=recipe.rungs[-1],
            grace_period=recipe.rungs[0],
            reduction_factor=recipe.early_stopping.reduction,
            random_seed=seed,
        )
        self._trials: dict[str, Any] = {}

    def suggest(self, trial: str) -> Hyperparameters | None:
        """The scheduler's proposal."""
        from syne_tune.backend.trial_status import Trial

        config = self._asha.suggest().config
        self._trials[trial] = Trial(len(self._trials), config, datetime.now())
        self._asha.on_trial_add(self._trials[trial])
        parameters, chosen = self._recipe.search_space.parameters, dict(config)
        fixed = {n: p.value for n, p in parameters.items() if isinstance(p, Fixed) and p.applies(chosen)}
        return Hyperparameters(**fixed, **config)

    def report(self, trial: str, windows_seen: int, score: float) -> bool:
        """The scheduler's decision."""
        decision = self._asha.on_trial_result(self._trials[trial], {BUDGET: windows_seen, OBJECTIVE: score})
        return bool(decision == "CONTINUE")

    def end(self, trial: str, windows_seen: int, score: float) -> None:
        """What was stopped is known already."""
        if math.isnan(score):
            self._asha.on_trial_error(self._trials[trial])
        elif windows_seen >= self._recipe.rungs[-1]:
            self._asha.on_trial_complete(self._trials[trial], {BUDGET: windows_seen, OBJECTIVE: score})


def changed(recipe: Recipe, seed: int, **parts: Mapping[str, Any]) -> Recipe:
    """The recipe with another seed of its search, and other values in some of its parts."""
    updated = {name: getattr(recipe, name).model_copy(update=values) for name, values in parts.items()}
    return recipe.model_copy(update={**updated, "seed": seed})


def way(name: str, table: Table, seed: int, workers: int) -> Way:
    """A way of searching by its name in `search.WAYS`."""
    recipe, random = table.recipe, {"sampler": "random"}
    match name:
        case "ours":
            return Ours(changed(recipe, seed), workers)
        case "random_asha":
            return Ours(changed(recipe, seed, search=random), workers)
        case "random_full":
            return Ours(changed(recipe, seed, search=random, early_stopping={"kind": "none"}), workers)
        case "ray_stock":
            return RayStock(recipe, seed)
        case "syne_tune":
            return SyneTune(recipe, seed)
        case "optuna" | "optuna_pruned":
            return PlainOptuna(recipe, seed, prunes=name == "optuna_pruned")
    raise AssertionError(name)
