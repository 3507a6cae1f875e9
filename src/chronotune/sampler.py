"""How Optuna proposes a point of a search space."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from chronotune.config.points import Values, grid, matches
from chronotune.config.search import SearchConfig
from chronotune.config.space import Choice, Fixed, FloatRange, Hyperparameters, IntRange, Scalar, SearchSpace


def draw(space: SearchSpace) -> Callable[[optuna.Trial], Hyperparameters]:
    """The define-by-run function of a space: parameters are suggested in order, conditional ones when they apply."""

    def suggest_all(trial: optuna.Trial) -> Hyperparameters:
        chosen: dict[str, Any] = {}
        for name, parameter in space.parameters.items():
            if parameter.applies(chosen):
                chosen[name] = _suggest(trial, name, parameter)
        return Hyperparameters(**chosen)

    return suggest_all


def _suggest(trial: optuna.Trial, name: str, parameter: FloatRange | IntRange | Choice | Fixed) -> Any:
    match parameter:
        case FloatRange():
            return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
        case IntRange():
            return trial.suggest_int(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
        case Choice():
            return trial.suggest_categorical(name, parameter.values)
        case Fixed():
            return parameter.value


def imported(trials: Sequence[Mapping[str, Any]], space: SearchSpace) -> list[optuna.trial.FrozenTrial]:
    """Trials of earlier sweeps, as `start.Start.imports` lists them, for a sampler to learn from."""
    return [
        optuna.trial.create_trial(
            state=optuna.trial.TrialState[trial["state"].upper()],
            value=min(objective for _, objective in trial["results"]),
            params=dict(trial["values"]),
            distributions={name: _distribution(space.parameters[name]) for name in trial["values"]},
            intermediate_values=dict(trial["results"]),
        )
        for trial in trials
    ]


def _distribution(parameter: FloatRange | IntRange | Choice | Fixed) -> optuna.distributions.BaseDistribution:
    """What `_suggest` draws from."""
    match parameter:
        case FloatRange():
            return optuna.distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.log)
        case IntRange():
            low, high = parameter.low, parameter.high
            return optuna.distributions.IntDistribution(low, high, log=parameter.log, step=parameter.step)
        case Choice():
            return optuna.distributions.CategoricalDistribution(parameter.values)
        case Fixed():
            return optuna.distributions.CategoricalDistribution([parameter.value])


def grid_in_order(space: SearchSpace, seed: int, first: Sequence[Values]) -> list[dict[str, Scalar]]:
    """Every point of a space once: those that match the points `first` in their order, the others at random.

    So a grid that the number of trials cuts short is a fair sample of the whole.
    """
    whole = grid(space)
    shuffled = [whole[index] for index in np.random.default_rng([seed, len(whole)]).permutation(len(whole))]
    return sorted(shuffled, key=lambda point: next((i for i, one in enumerate(first) if matches(point, one)), math.inf))


def sampler(config: SearchConfig, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler that proposes trial `number`, seeded by it alone."""
    own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if config.sampler in ("random", "grid"):  # a point of a grid leaves nothing to draw
        return optuna.samplers.RandomSampler(seed=own_seed)
    if config.sampler == "gp":
        # what is not in every trial is drawn at random, as the recipe's key says: no warning each time
        return optuna.samplers.GPSampler(
            seed=own_seed, n_startup_trials=config.startup_trials, warn_independent_sampling=False
        )
    with warnings.catch_warnings():
        # group=True is marked experimental; without it conditional parameters fall out of the joint model
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _TPESampler(seed=own_seed, multivariate=True, group=True, n_startup_trials=config.startup_trials)


class _TPESampler(optuna.samplers.TPESampler):
    """Optuna's, proposing the same, but finding the groups of parameters in a few trials instead of in all.

    For each proposal there is a new sampler, which remembers no groups.
    """

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As Optuna's: groups are split by which parameters a trial has, and not again by the same ones."""
        first: dict[frozenset[str], FrozenTrial] = {}
        for ended in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
            first.setdefault(frozenset(ended.distributions), ended)
        few = optuna.create_study()
        for one in first.values():
            few.add_trial(
                optuna.trial.create_trial(state=TrialState.PRUNED, params=one.params, distributions=one.distributions)
            )
        return super().infer_relative_search_space(few, trial)
