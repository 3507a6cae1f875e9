"""Where samplers draw: in a study in memory that has the past of the durable one, and where what is drawn is no trial.

So a trial enters the durable study whole or not at all, and may be drawn before it is asked for, in another thread.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from chronotune.proposal import Drawn, Proposal, key


class Drawing:
    """Of the trials of one study, for its one writer."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="drawing")
        self._begun: tuple[int, Future[Drawn]] | None = None
        self._tried: list[frozenset[tuple[str, Any]]] = []

    def begin(self, by: Proposal, trials: Sequence[FrozenTrial]) -> None:
        """Begin to draw the trial after all `trials` of the study, which is drawn `ahead`; `draw` waits for it."""
        if not self._begun:
            self._begun = len(trials), self._thread.submit(self._draw, by, trials)

    def draw(self, by: Proposal, trials: Sequence[FrozenTrial]) -> Drawn:
        """The trial after all `trials` of the study, drawn now unless that has begun."""
        if self._begun:
            number, drawing = self._begun
            try:
                drawn = drawing.result()
            finally:
                if drawing.done():  # else it was interrupted, and draws on
                    self._begun = None
            if number == len(trials):
                return drawn
        return self._draw(by, trials)

    def _draw(self, by: Proposal, trials: Sequence[FrozenTrial]) -> Drawn:
        self._tried += [key(trial.params) for trial in trials[len(self._tried) :]]
        if by.ahead and trials:
            trials = [*trials[:-1], _still_running(trials[-1])]
        past = [*by.beside, *trials]
        study = optuna.create_study(storage=_Memory(by.shown(past) if by.shown else past))
        return by.choose(study, set(self._tried))


def _still_running(trial: FrozenTrial) -> FrozenTrial:
    again = create_trial(state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions)
    again.number = trial.number
    return again


class _Memory(InMemoryStorage):
    """One study, which begins with a past that it shares and does not copy: that is never changed here.

    Trials are numbered from the first of the past on, for what samplers ask for; Optuna's other questions count anew.
    """

    def __init__(self, past: Sequence[FrozenTrial]) -> None:
        super().__init__()
        begun = [trial for trial in past if trial.state != TrialState.WAITING]
        self._past = [_numbered(trial, number) for number, trial in enumerate(begun)]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """One of the study's own, numbered after the past."""
        return self._after(super().get_trial(trial_id))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Past and own."""
        past = self._past if states is None else [trial for trial in self._past if trial.state in states]
        return [*past, *map(self._after, super().get_all_trials(study_id, deepcopy, states))]

    def _after(self, own: FrozenTrial) -> FrozenTrial:
        return _numbered(own, len(self._past) + own.number)


def _numbered(trial: FrozenTrial, number: int) -> FrozenTrial:
    if trial.number == number:
        return trial
    again = copy.copy(trial)
    again.number = number
    return again
