"""The finalists: the best trials, trained again with other seeds, and which of them wins.

A trial that leads the search leads it in part by the luck of its seed: it was chosen for its score. So the search's
own score does not count. Every finalist is trained with the same new seeds, and they are compared by their means.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chronotune.config.space import Hyperparameters
from chronotune.errors import WORKER_LOST
from chronotune.records import FINALISTS
from chronotune.study import Reading, TrialRecord, by_score

SEEDS = 2**31
"""Seeds are below; the recipe's has the same limit."""


@dataclass(frozen=True)
class Standing:
    """One finalist and how far its repeats are."""

    trial: TrialRecord
    """The searched trial; its score is the one that it was chosen for, so on average better than it deserves."""
    repeats: tuple[TrialRecord, ...]
    """Its trainings with other seeds, by seed; of one that was tried again, the last try."""
    wanted: int
    """Seeds that it is to be trained with."""

    @property
    def complete(self) -> tuple[TrialRecord, ...]:
        """The repeats that got their full budget, from best to worst."""
        return tuple(sorted((r for r in self.repeats if r.state == "complete"), key=_score))

    @property
    def failures(self) -> int:
        """Repeats that failed."""
        return sum(repeat.state == "failed" for repeat in self.repeats)

    @property
    def ended(self) -> bool:
        """Whether no repeat is to come any more."""
        return sum(repeat.state != "running" for repeat in self.repeats) >= self.wanted

    @property
    def mean(self) -> float | None:
        """Of the complete repeats' best scores; None without one."""
        return statistics.fmean(map(_score, self.complete)) if self.complete else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation of the same scores; None with fewer than two."""
        return statistics.stdev(map(_score, self.complete)) if len(self.complete) > 1 else None

    @property
    def median(self) -> TrialRecord | None:
        """The complete repeat in the middle; of two, the worse."""
        return self.complete[len(self.complete) // 2] if self.complete else None


def seeds(seed: int, count: int) -> list[int]:
    """The finalists' seeds: those that follow the search's own."""
    return [(seed + step) % SEEDS for step in range(1, count + 1)]


def choose(trials: Sequence[TrialRecord], top: int, before: Sequence[int] = ()) -> list[int]:
    """The numbers of the trials to train again.

    Args:
        trials: Of the searched study.
        top: How many of the best complete ones; equal hyperparameters count once.
        before: Chosen earlier: they stay, in front.
    """
    distinct: dict[Hyperparameters | None, int] = {}
    for trial in by_score(trials):
        distinct.setdefault(trial.hyperparameters, trial.number)
    known = {trials[number].hyperparameters for number in before}
    return [*before, *(number for point, number in list(distinct.items())[:top] if point not in known)]


def plan(chosen: Mapping[str, Sequence[int]]) -> list[tuple[int, int]]:
    """Trial and seed of every repeat, in the order of training: one seed of all finalists, then the next.

    Args:
        chosen: What the study notes: the finalists' `trials`, and their `seeds`.
    """
    return [(number, seed) for seed in chosen["seeds"] for number in chosen["trials"]]


def is_lost(repeat: TrialRecord) -> bool:
    """Whether a repeat failed only because its worker did: a dead machine says nothing of a configuration."""
    return repeat.state == "failed" and repeat.reason == WORKER_LOST


def latest(repeats: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Of each trial and seed the last repeat: one that was lost is tried again by the next driver."""
    return list({(repeat.of, repeat.seed): repeat for repeat in repeats}.values())


def any_lost(reading: Reading) -> bool:
    """Whether a repeat that the study wants was lost, and not yet tried again."""
    return any(is_lost(repeat) for standing in standings(reading) for repeat in standing.repeats)


def standings(reading: Reading) -> list[Standing]:
    """The finalists from best to worst; empty when there are none.

    First those with the fewest failures, then by their mean: a configuration that fails for some seeds is not safe to
    export, however well it does for the others.
    """
    chosen: Mapping[str, list[int]] = reading.attributes.get(FINALISTS) or {"trials": [], "seeds": []}
    by_key = {(repeat.of, repeat.seed): repeat for repeat in latest(reading.finalists)}
    found = [
        Standing(
            reading.trials[number],
            tuple(by_key[number, seed] for seed in chosen["seeds"] if (number, seed) in by_key),
            len(chosen["seeds"]),
        )
        for number in chosen["trials"]
    ]
    return sorted(found, key=_rank)


def champion(reading: Reading) -> Standing | None:
    """The finalist that wins, as far as they have ended: None while none has, or when all repeats of all failed."""
    return next((standing for standing in standings(reading) if standing.ended and standing.complete), None)


def needed(reading: Reading) -> set[int]:
    """Numbers of the repeats whose checkpoints an export may still ask for.

    All of a finalist that has not ended or that lost one, since any of them may become its median, and the median of
    the best that has ended.
    """
    open_ones = [one for one in standings(reading) if not one.ended or any(map(is_lost, one.repeats))]
    found = {repeat.number for one in open_ones for repeat in one.repeats}
    best = champion(reading)
    return found | ({best.median.number} if best and best.median else set())


def averaged(reading: Reading) -> set[int]:
    """Numbers of the repeats whose weights may be averaged before a winner is exported: those of the best finalist."""
    best = champion(reading)
    return {repeat.number for repeat in best.complete} if best else set()


def _rank(standing: Standing) -> tuple[bool, int, float, int]:
    mean = standing.mean
    return (mean is None, standing.failures, 0.0 if mean is None else mean, standing.trial.number)


def _score(trial: TrialRecord) -> float:
    assert trial.best is not None
    return trial.best.objective
