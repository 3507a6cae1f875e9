"""What became of a sweep after a fault: as if nothing had happened, whole at least, or broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from place import LEFTOVERS, Place, facts

from chronotune.finalists import latest, plan
from chronotune.study import Reading, TrialRecord, read
from chronotune.tracking.content import SWEEP, key_of

Verdict: TypeAlias = Literal["identical", "consistent", "BROKEN", "not run"]
FULL_BUDGET = 48


@dataclass(frozen=True)
class Story:
    """What happened in a fault, told by who made it happen."""

    happened: str
    places: tuple[Place, ...]
    """Each with an ended sweep."""
    left: str = "nothing"
    """What the next driver had to see to."""
    kills: int = 1


@dataclass(frozen=True)
class Outcome:
    """What a fault did and left behind: a row of the table."""

    name: str
    told: str
    happened: str
    kills: int
    left: str
    verdict: Verdict
    survived: bool
    """Whether the verdict is as promised, or better."""
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    """Of the sweep's trials, finalists' repeats included."""
    mlflow: str = ""
    """Statuses of the MLflow runs."""
    broken: str = ""
    """What is wrong."""


def outcome(name: str, told: str, story: Story, promise: Verdict, failures: int, whole: Sequence[Any]) -> Outcome:
    """Judge a story.

    Args:
        name: Of the fault.
        told: What the fault is.
        story: What happened.
        promise: The verdict that is promised.
        failures: How many trials are promised to fail, finalists' repeats included.
        whole: The table of the undisturbed sweep.
    """
    wrong = [fault for place in story.places for fault in faults(place, failures)]
    same = all(place.table() == list(whole) for place in story.places)
    verdict: Verdict = "BROKEN" if wrong else "identical" if same else "consistent"
    states: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    for place in story.places:
        states.update(trial.state for trial in _trials(read(place.sweep)))
        statuses.update(place.statuses())
    return Outcome(
        name, told, story.happened, story.kills, story.left, verdict,
        survived=verdict == "identical" or verdict == promise,
        complete=states["complete"], pruned=states["pruned"], failed=states["failed"], running=states["running"],
        mlflow=", ".join(f"{count} {status}" for status, count in sorted(statuses.items())),
        broken="; ".join(wrong),
    )  # fmt: skip


def faults(place: Place, failures: int = 0) -> Iterator[str]:
    """What is wrong with an ended sweep; nothing when it is whole: every trial exactly once, all ended, no remains."""
    reading = read(place.sweep)
    wanted, numbers = reading.attributes["trials"], [trial.number for trial in reading.trials]
    if numbers != list(range(wanted)):
        yield f"{wanted} trials were wanted, there are {numbers}"
    for trial in _trials(reading):
        yield from _faults_of(trial)
    failed = sum(trial.state == "failed" for trial in _trials(reading))
    if failed != failures:
        yield f"{failures} trials should fail, {failed} did: {[t.reason for t in _trials(reading) if t.reason]}"
    chosen = reading.attributes.get("finalists") or {"trials": (), "seeds": ()}
    trained = [(repeat.of, repeat.seed) for repeat in latest(reading.finalists) if repeat.state == "complete"]
    if sorted(trained) != sorted(plan(chosen)):
        yield f"the finalists' trainings should be {plan(chosen)}, but are {trained}"
    missing = [key for key in ("winner", "evaluation", "ended") if not reading.attributes.get(key)]
    yield from (f"the study has no {key}" for key in missing)
    yield from (f"{word} is left behind" for word, pattern in LEFTOVERS.items() if list(place.sweep.glob(pattern)))
    known = set(map(facts, _trials(reading)))
    yield from (f"had ended, and is gone or another: {lost}" for lost in sorted(place.kept - known))
    yield from _faults_of_mlflow(place, reading)


def _trials(reading: Reading) -> Iterable[TrialRecord]:
    return (*reading.trials, *reading.finalists)


def _faults_of(trial: TrialRecord) -> Iterator[str]:
    name = f"trial {trial.number}" if trial.of is None else f"repeat {trial.number}"
    if trial.state == "running":
        yield f"{name} is left running"
    if (trial.state == "complete") != (trial.windows_seen == FULL_BUDGET) and trial.state != "failed":
        yield f"{name} is {trial.state} after {trial.windows_seen} windows"
    if (trial.state == "failed") != bool(trial.reason):
        yield f"{name} is {trial.state}, its reason is {trial.reason}"


def _faults_of_mlflow(place: Place, reading: Reading) -> Iterator[str]:
    """One run for each trial and one for the sweep, all ended as they did; of a trial every value once."""
    trials = list(_trials(reading))
    failed = sum(trial.state == "failed" for trial in trials)
    expected = {"FINISHED": 1 + len(trials) - failed, **({"FAILED": failed} if failed else {})}
    if (statuses := place.statuses()) != expected:
        yield f"MLflow should hold {expected}, but holds {statuses}"
    measured = Counter(
        (key_of(trial), metric, result.windows_seen, value)
        for trial in trials
        for result in trial.results
        for metric, value in result.metrics.items()
    )
    names = {metric for _, metric, *_ in measured}
    mirrored = Counter({point: n for point, n in place.points().items() if point[0] != SWEEP and point[1] in names})
    for word, points in (("lacks", measured - mirrored), ("has too much", mirrored - measured)):
        if points:
            yield f"MLflow {word} {sorted(points.elements())[:3]} and so on, {points.total()} values"
