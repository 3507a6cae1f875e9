"""How Optuna proposes a point of a search space."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from chronotune.config.points import Values, grid, matches
from chronotune.config.recipe import Recipe
from chronotune.config.search import SearchConfig
from chronotune.config.space import Choice, Fixed, FloatRange, Hyperparameters, IntRange, Scalar, SearchSpace, extremes
from chronotune.extrapolation import at_full_budget

GAUSSIAN_UNTIL = 200
"""Known trials from which on `gp` proposes by `tpe`: by then a Gaussian process takes a third of a second."""


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


def imported(trials: Sequence[Mapping[str, Any]], space: SearchSpace) -> list[FrozenTrial]:
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


def sampler(recipe: Recipe, number: int, beside: int = 0) -> optuna.samplers.BaseSampler:
    """The sampler that proposes trial `number`, seeded by it alone; `beside` trials of earlier sweeps are known too."""
    config, own_seed = recipe.search, int(np.random.SeedSequence([recipe.seed, number]).generate_state(1)[0])
    if config.sampler in ("random", "grid"):  # a point of a grid leaves nothing to draw
        return optuna.samplers.RandomSampler(seed=own_seed)
    if _is_gaussian(config, number + beside):
        # no warning each time of what is drawn at random: a parameter that no trial has yet
        return optuna.samplers.GPSampler(
            seed=own_seed, n_startup_trials=config.startup_trials, warn_independent_sampling=False
        )
    with warnings.catch_warnings():
        # group=True is marked experimental; without it conditional parameters fall out of the joint model
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=own_seed, multivariate=True, group=True, n_startup_trials=config.startup_trials
        )


def shown(recipe: Recipe, number: int, beside: int = 0) -> Callable[[Sequence[FrozenTrial]], list[FrozenTrial]] | None:
    """What that sampler sees in place of the trials: for a Gaussian process their expected scores at full budget."""
    if not _is_gaussian(recipe.search, number + beside):
        return None
    absent = {
        name: (_middle(parameter), _distribution(parameter))
        for name, parameter in recipe.search_space.parameters.items()
        if parameter.when and not isinstance(parameter, Fixed)
    }
    return partial(at_full_budget, rungs=recipe.rungs, absent=absent)


def _is_gaussian(config: SearchConfig, known: int) -> bool:
    return config.sampler == "gp" and known < GAUSSIAN_UNTIL


def _middle(parameter: FloatRange | IntRange | Choice) -> Scalar:
    """What stands for a parameter where it does not apply."""
    values: list[Scalar] = extremes(parameter)
    return values[len(values) // 2]
