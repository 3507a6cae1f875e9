"""A sweep's figures on Ray's metrics port, from where Prometheus fetches them; `cluster/launch/grafana` draws them.

They are readings of the study, set by its driver: what is wrong with them never ends a sweep.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from chronotune.study import Reading, TrialRecord

log = logging.getLogger("chronotune.gauges")

STATES = ("running", "complete", "pruned", "failed")

GAUGES = {
    "chronotune_best_objective": "Best validation score of a complete trial, lower is better; absent while none is",
    "chronotune_zero_shot_objective": "Validation score of the untouched model in its best setting",
    "chronotune_lift": "Share by which the best trial's validation score is lower than zero-shot's; 0.05 is 5% better",
    "chronotune_trials": "Searched trials by state: running, complete, pruned (stopped early), failed",
    "chronotune_windows_per_second": "Training windows a second, over the last ten minutes",
    "chronotune_busy_share": "Share of the slots' time in which trials trained or were scored, over ten minutes",
    "chronotune_mirror_backlog": "Results in the study that MLflow does not have yet; absent without tracking",
}
"""Name and meaning of each; Ray's exporter puts `ray_` before the name. All have the label `sweep`."""

WINDOWS = "chronotune_windows"
"""A counter: training windows of all trials that this driver has seen; exported as `ray_chronotune_windows_total`."""

_PERIOD = 600.0
"""Seconds over which rates are taken: longer than a rung takes, so that they do not jump."""

_PAUSE = 1.0
"""Seconds between two updates: thousands of trials are read each time."""


@dataclass(frozen=True)
class Work:
    """What trials have done, finalists' repeats included."""

    windows: int
    """Training windows."""
    seconds: float
    """Of training and scoring, summed over trials."""

    @classmethod
    def of(cls, reading: Reading) -> Work:
        """All work that the study knows of."""
        trials = [*reading.trials, *reading.finalists]
        return cls(sum(trial.windows_seen for trial in trials), math.fsum(map(_seconds, trials)))


def _seconds(trial: TrialRecord) -> float:
    return float(trial.results[-1].attributes.get("seconds", 0.0)) if trial.results else 0.0


def results_of(trials: Sequence[TrialRecord]) -> int:
    """How many results trials have reported."""
    return sum(len(trial.results) for trial in trials)


def standing(reading: Reading) -> Iterator[tuple[str, float]]:
    """How good the search is: gauges by name; what is not known yet is left out."""
    best, reference = reading.winner, reading.zero_shot
    if reference:
        objective = float(reference["metrics"][reading.attributes["recipe"]["objective"]])
        yield "chronotune_zero_shot_objective", objective
        if best and best.best and objective:
            yield "chronotune_lift", (objective - best.best.objective) / objective
    if best and best.best:
        yield "chronotune_best_objective", best.best.objective


class Pace:
    """Windows a second, and the busy share of slots, over a moving period."""

    def __init__(self, work: Work, now: float) -> None:
        self._past = deque([(now, work)])

    def update(self, work: Work, slots: int, now: float) -> tuple[float, float]:
        """Windows a second and busy share (0 to 1) since the start of the period."""
        self._past.append((now, work))
        while len(self._past) > 2 and now - self._past[1][0] >= _PERIOD:
            self._past.popleft()
        then, before = self._past[0]
        elapsed = max(now - then, 1e-9)
        busy = (work.seconds - before.seconds) / (elapsed * max(slots, 1))
        return (work.windows - before.windows) / elapsed, min(max(busy, 0.0), 1.0)


class Gauges:
    """Sets the gauges of one sweep; needs a connected Ray.

    Args:
        sweep: Value of the label `sweep`.
        reading: The study as this driver finds it.
        slots: How many trials fit at the same time now.
        mirrored: How many results MLflow has, or None without tracking.
    """

    def __init__(
        self, sweep: str, reading: Reading, slots: Callable[[], int], mirrored: Callable[[], int | None]
    ) -> None:
        from ray.util import metrics

        self._slots, self._mirrored = slots, mirrored
        self._work, self._updated, self._broken = Work.of(reading), -math.inf, False
        self._pace = Pace(self._work, time.monotonic())
        tag = {"sweep": sweep}
        self._gauges = {
            name: metrics.Gauge(name, description, ("sweep", "state") if name.endswith("trials") else ("sweep",))
            for name, description in GAUGES.items()
        }
        self._windows = metrics.Counter(WINDOWS, "Training windows of all trials", ("sweep",))
        for metric in (*self._gauges.values(), self._windows):
            metric.set_default_tags(tag)

    def update(self, reading: Reading, *, now: bool = False) -> None:
        """Set all gauges, at most once a second unless it must be `now`; never raises."""
        if self._broken or not (now or time.monotonic() - self._updated >= _PAUSE):
            return
        try:
            self._set(reading)
        except Exception as error:  # only the record may end a sweep
            self._broken = True
            log.warning("metrics are no longer exported: %r", error)
        self._updated = time.monotonic()

    def _set(self, reading: Reading) -> None:
        for name, value in standing(reading):
            self._gauges[name].set(value)
        states = Counter[str](trial.state for trial in reading.trials)
        for state in STATES:
            self._gauges["chronotune_trials"].set(states[state], {"state": state})
        work = Work.of(reading)
        speed, busy = self._pace.update(work, self._slots(), time.monotonic())
        self._gauges["chronotune_windows_per_second"].set(speed)
        self._gauges["chronotune_busy_share"].set(busy)
        if (new := work.windows - self._work.windows) > 0:
            self._windows.inc(new)
        self._work = work
        if (mirrored := self._mirrored()) is not None:
            behind = results_of([*reading.trials, *reading.finalists]) - mirrored
            self._gauges["chronotune_mirror_backlog"].set(max(behind, 0))
