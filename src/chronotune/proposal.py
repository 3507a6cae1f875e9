"""How the next trial of a study is drawn: by which sampler, what that is shown of the past, and no point twice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from chronotune.config.points import Values, matches
from chronotune.config.space import Hyperparameters

ATTEMPTS = 3
"""How often a sampler is asked for a point that was not tried before."""


@dataclass(frozen=True)
class Drawn:
    """A point, and how Optuna holds it."""

    hyperparameters: Hyperparameters
    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]

    @property
    def key(self) -> frozenset[tuple[str, Any]]:
        """Of its parameters."""
        return key(self.params)


@dataclass(frozen=True)
class Proposal:
    """How one trial is drawn: `draw` suggests its parameters with `sampler`, but for those that are `given`."""

    sampler: BaseSampler
    draw: Callable[[optuna.Trial], Hyperparameters]
    given: Values | None = None
    beside: Sequence[FrozenTrial] = ()
    """Trials that the sampler learns from as if they were of the study, which they do not become."""
    points: Sequence[Values] = ()
    """All of a finite space, to fall back on."""
    shown: Callable[[Sequence[FrozenTrial]], Sequence[FrozenTrial]] | None = None
    """What the sampler sees in place of the trials; None for the trials as they are."""
    seed: int = 0
    """Of what is drawn by chance where the sampler knows nothing new."""
    ahead: bool = False
    """Drawn as if the trial before it were still running, whether it is or not: so that nobody has to wait for it."""

    def choose(self, study: optuna.Study, tried: Collection[frozenset[tuple[str, Any]]]) -> Drawn:
        """Draw in a study in memory, where all that is drawn stays running.

        A point whose parameters (`key`) were `tried` gives way to something by chance; of a finite space to the first
        of `points` that was not tried, if there is one with what is given, and else to the first of all. In an endless
        space nothing is drawn either that was tried `beside`; in a finite one that may be all there is.
        """
        given = self.given or {}
        known = [] if given or self.points else [key(one.params) for one in self.beside]
        study.sampler = self.sampler
        for _ in range(ATTEMPTS):  # a Gaussian process does not expect anything new where somebody is at work
            drawn = self._ask(study, given)
            if not (drawn.key in tried or drawn.key in known):
                return drawn
        by_chance = optuna.create_study(sampler=RandomSampler(seed=self.seed))
        rest = [*(point for point in self.points if matches(point, given)), *self.points]
        for values in rest or [given]:
            drawn = self._ask(by_chance, values)
            if drawn.key not in tried:
                break
        return drawn

    def _ask(self, study: optuna.Study, given: Values) -> Drawn:
        if given:
            study.enqueue_trial(dict(given))
        trial = study.ask()
        return Drawn(self.draw(trial), trial.params, trial.distributions)


def key(params: dict[str, Any]) -> frozenset[tuple[str, Any]]:
    """The same for two points only if they are the same."""
    return frozenset(params.items())
