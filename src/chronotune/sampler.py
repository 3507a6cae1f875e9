"""How Optuna proposes a point of a search space."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from chronotune.config.points import Values, grid, matches
from chronotune.config.recipe import Recipe
from chronotune.config.space import Choice, Fixed, FloatRange, Hyperparameters, IntRange, Scalar, SearchSpace
from chronotune.extrapolation import at_full_budget

log = logging.getLogger("chronotune.sampler")

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


def seed_of(recipe: Recipe, number: int) -> int:
    """The seed of trial `number`, whatever came before it."""
    return int(np.random.SeedSequence([recipe.seed, number]).generate_state(1)[0])


def sampler(recipe: Recipe, number: int, beside: int = 0) -> optuna.samplers.BaseSampler:
    """The sampler that proposes trial `number`, seeded by it alone; `beside` trials of earlier sweeps are known too."""
    config, seed = recipe.search, seed_of(recipe, number)
    if config.sampler in ("random", "grid"):  # a point of a grid leaves nothing to draw
        return optuna.samplers.RandomSampler(seed=seed)
    if config.sampler == "gp" and number + beside < GAUSSIAN_UNTIL:
        # no warning each time of what is drawn at random: a parameter that no trial has yet
        return _GPSampler(seed=seed, n_startup_trials=config.startup_trials, warn_independent_sampling=False)
    return _TPESampler(recipe.search_space, seed=seed, n_startup_trials=config.startup_trials)


def is_ahead(recipe: Recipe, number: int, beside: int = 0) -> bool:
    """Whether trial `number` is drawn while the one before it runs: TPE takes ever longer, a result says ever less."""
    return recipe.search.sampler in ("gp", "tpe") and number + beside >= GAUSSIAN_UNTIL


class _TPESampler(optuna.samplers.TPESampler):
    """Optuna's with `group=True`: what applies together has one joint model, or conditional parameters would have none.

    Which those are the space says; Optuna compares the parameters of all trials, a third of its time for a proposal.
    """

    def __init__(self, space: SearchSpace, seed: int, n_startup_trials: int) -> None:
        super().__init__(seed=seed, n_startup_trials=n_startup_trials, multivariate=True)
        found: dict[str, dict[str, BaseDistribution]] = {}
        for name, parameter in sorted(space.parameters.items()):
            when = _open(parameter.when, space)
            if when is not None and not (distribution := _distribution(parameter)).single():
                found.setdefault(repr(when), {})[name] = distribution
        self._together = list(found.values())

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All that varies."""
        return {name: distribution for one in self._together for name, distribution in one.items()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's, one group after the other."""
        drawn: dict[str, Any] = {}
        for one in self._together:
            drawn |= super().sample_relative(study, trial, one)
        return drawn


def _open(when: Mapping[str, Any], space: SearchSpace) -> dict[str, Any] | None:
    """Of a condition what a trial decides, empty where it always holds; None where it never does."""
    left = {}
    for name, wanted in when.items():
        other, wanted = space.parameters[name], wanted if isinstance(wanted, list) else [wanted]
        values = other.values if isinstance(other, Choice) else [other.value] if isinstance(other, Fixed) else [None]
        if not set(values) & {None, *wanted}:
            return None
        if not set(values) <= set(wanted):
            left[name] = wanted
    return left


class _GPSampler(optuna.samplers.GPSampler):
    """Optuna's, with the same digits on any number of cores, and by chance where its numerics give up."""

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's; nothing after an error, so that every parameter is drawn at random."""
        import torch

        threads, verbosity = torch.get_num_threads(), optuna.logging.get_verbosity()
        torch.set_num_threads(1)
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # a fit that did not converge is fitted more simply
        try:
            return super().sample_relative(study, trial, search_space)
        except (ValueError, RuntimeError, ArithmeticError) as error:
            log.warning("the next trial is drawn at random: the Gaussian process failed: %s", error)
            return {}
        finally:
            torch.set_num_threads(threads)
            optuna.logging.set_verbosity(verbosity)


def shown(
    by: optuna.samplers.BaseSampler, recipe: Recipe
) -> Callable[[Sequence[FrozenTrial]], list[FrozenTrial]] | None:
    """What a sampler sees in place of the trials: for a Gaussian process their expected scores at full budget."""
    if not isinstance(by, optuna.samplers.GPSampler):
        return None
    absent = {
        name: (_stand_in(parameter), _distribution(parameter))
        for name, parameter in recipe.search_space.parameters.items()
        if parameter.when and not isinstance(parameter, Fixed)
    }
    return partial(at_full_budget, rungs=recipe.rungs, absent=absent)


def _stand_in(parameter: FloatRange | IntRange | Choice) -> Scalar:
    """A value from the middle of a parameter, for where it does not apply."""
    if isinstance(parameter, Choice):
        return parameter.values[len(parameter.values) // 2]
    if isinstance(parameter, IntRange):
        return parameter.low + (parameter.high - parameter.low) // (2 * parameter.step) * parameter.step
    return (parameter.low + parameter.high) / 2
