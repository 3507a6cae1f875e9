"""What a study says, as values: results, trials, and a whole sweep as it was at one moment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

from chronotune.config.space import Hyperparameters

OBJECTIVE, BUDGET = "objective", "windows_seen"
"""Keys of a result that ASHA compares by, and along."""

ZERO_SHOT = "zero_shot"
"""Key of a Tune configuration, and of its result, that scores the untouched model instead of a trial."""

FINALISTS = "finalists"
"""Attribute of a study that has a second one for its finalists, and what is behind the slash of the second's name."""

State: TypeAlias = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class Result:
    """What a trial reported at one rung."""

    windows_seen: int
    objective: float
    metrics: Mapping[str, float]
    """Validation metrics in original units, and the training loss."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What else is known: seconds, steps, device, the checkpoint's path relative to the sweep's checkpoints."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the study knows it."""

    number: int
    state: State
    hyperparameters: Hyperparameters | None
    """None only for a trial that a driver of an older version did not finish to write."""
    results: tuple[Result, ...]
    """By windows seen, ascending."""
    reason: str | None
    """Why it failed."""
    started: datetime | None
    ended: datetime | None
    of: int | None = None
    """Of a finalist's repeat: the number of the searched trial that is trained again."""
    seed: int | None = None
    """Of a finalist's repeat: what it is trained with. A searched trial is trained with the recipe's."""

    @property
    def best(self) -> Result | None:
        """The result with the lowest objective: the one that counts, and whose checkpoint is exported."""
        return min(self.results, key=lambda result: result.objective, default=None)

    @property
    def searched(self) -> int:
        """The number of the searched trial that it is, or repeats."""
        return self.number if self.of is None else self.of

    @property
    def windows_seen(self) -> int:
        """Training windows of the last result."""
        return self.results[-1].windows_seen if self.results else 0


@dataclass(frozen=True)
class Reading:
    """A sweep's study as it was at one moment."""

    name: str
    attributes: Mapping[str, Any]
    trials: tuple[TrialRecord, ...]
    finalists: tuple[TrialRecord, ...] = ()
    """The finalists' repeats, by number; `of` and `seed` say what each is."""

    @property
    def winner(self) -> TrialRecord | None:
        """The complete trial with the best score, as `optuna.Study.best_trial` would say."""
        return winner(self.trials)

    @property
    def evaluation(self) -> Mapping[str, Any] | None:
        """The evaluation of the winner that is named now, None while there is only one of an earlier winner's weights.

        One of before evaluations told whose they are is taken to be the winner's.
        """
        noted: Mapping[str, Any] | None = self.attributes.get("evaluation")
        of = (noted or {}).get("sha256")
        named = (self.attributes.get("winner") or {}).get("sha256")
        return noted if of is None or of == named else None

    @property
    def zero_shot(self) -> Mapping[str, Any] | None:
        """The setting in which the untouched model did best on validation, with its metrics: the one to beat."""
        return preferred(self.attributes.get("zero_shot") or [], self.attributes["recipe"]["objective"])


def preferred(settings: Sequence[Mapping[str, Any]], objective: str) -> Mapping[str, Any] | None:
    """The setting of zero-shot with the lowest objective on validation, one whose score is not finite last."""

    def score(setting: Mapping[str, Any]) -> float:
        found = setting["metrics"][objective]
        return float(found) if found is not None and math.isfinite(found) else math.inf

    return min(settings, key=score, default=None)


def winner(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The complete trial with the lowest best score; the earliest on a tie; None when none is complete."""
    return next(iter(by_score(trials)), None)


def by_score(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The complete trials from best to worst; of equal ones the earlier first."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.best is not None]
    return sorted(complete, key=lambda trial: (_score(trial), trial.number))


def _score(trial: TrialRecord) -> float:
    return trial.best.objective if trial.best else math.inf
