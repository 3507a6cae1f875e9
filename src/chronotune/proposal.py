"""How the next trial of a study is chosen: by which sampler, what that is shown of the past, and no point twice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import repeat

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from chronotune.config.points import Values, matches
from chronotune.config.space import Hyperparameters

ATTEMPTS = 3
"""How often a sampler is asked for a point that was not tried before."""


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

    @property
    def is_plain(self) -> bool:
        """Whether the study itself can be asked: nothing stands between it and the sampler."""
        return not (self.beside or self.points or self.shown)

    def choose(self, trials: Sequence[FrozenTrial], tried: Collection[Hyperparameters]) -> optuna.Trial:
        """The trial after `trials`, drawn in a study in memory; it says what to take over, and is no trial of ours.

        What was `tried` gives way to something by chance; of a finite space to the first of `points` that was not
        tried, if there is one with what is given, and else to the first of all. In an endless space nothing is drawn
        either that was tried `beside`; in a finite one that may be all there is.
        """
        known = [] if self.given or self.points else [one.params for one in self.beside]
        study = optuna.create_study(sampler=self.sampler)
        past = [*self.beside, *trials]
        study.add_trials(self.shown(past) if self.shown else past)
        given = self.given or {}
        rest = [*(point for point in self.points if matches(point, given)), *self.points]
        for attempt, values in enumerate([*repeat(given, ATTEMPTS), *(rest or [given])]):
            if attempt == ATTEMPTS:
                study.sampler = RandomSampler(seed=self.seed)  # of a point all is given
            if values:
                study.enqueue_trial(dict(values))
            trial = study.ask()
            if self.draw(trial) not in tried and trial.params not in known:
                break
            # it stays running: a Gaussian process does not expect anything new where somebody is at work
        return trial
