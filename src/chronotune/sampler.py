"""How Optuna proposes a point of a search space."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna

from chronotune.config.search import SearchConfig
from chronotune.config.space import Choice, Fixed, FloatRange, Hyperparameters, IntRange, SearchSpace


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


def sampler(config: SearchConfig, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler that proposes trial `number`, seeded by it alone."""
    own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if config.sampler == "random":
        return optuna.samplers.RandomSampler(seed=own_seed)
    with warnings.catch_warnings():
        # group=True is marked experimental; without it conditional parameters fall out of the joint model
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=own_seed, multivariate=True, group=True, n_startup_trials=config.startup_trials
        )
