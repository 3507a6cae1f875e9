"""A search on a simulated clock: trials take the time, and reach the scores, that were recorded of them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from curves import Curve, Table

from chronotune.config.space import Hyperparameters


class Way(Protocol):
    """A method of search: what is tried, and what is stopped early."""

    def suggest(self, trial: str) -> Hyperparameters | None:
        """The next configuration, under the name `trial`; None when there is none."""

    def report(self, trial: str, windows_seen: int, score: float) -> bool:
        """Take a result before the end; whether the trial is to go on."""

    def end(self, trial: str, windows_seen: int, score: float) -> None:
        """A trial has ended with this as its last result: at its full budget, stopped, or with a score of NaN."""


@dataclass(frozen=True)
class Step:
    """A result, at the moment at which it is there."""

    point: Hyperparameters
    score: float
    """The best of its trial so far, NaN when training diverged."""
    seconds: float
    """Of the simulated clock."""
    windows: float
    """Trained by all workers until then, slices under way in proportion."""
    end: str
    """How its trial ended with it: `complete`, `pruned`, `failed`; empty when it went on."""


@dataclass
class _Running:
    """A trial on its worker, busy with the slice that ends at rung `rung` (counted from 0)."""

    name: str
    point: Hyperparameters
    curve: Curve
    began: float
    rung: int = 0

    @property
    def slice(self) -> int:
        """Windows of the slice that it is busy with."""
        return self.curve.windows_seen[self.rung] - (self.curve.windows_seen[self.rung - 1] if self.rung else 0)


class Clock:
    """Workers that are never idle while the way has something to try; results arrive in the order of time."""

    def __init__(self, way: Way, table: Table, workers: int, speed: float = 1.0) -> None:
        """Begin at second 0.

        Args:
            way: What decides.
            table: What is looked up.
            workers: Trials at a time.
            speed: Of a worker, in recorded seconds a second.
        """
        self._way, self._table, self._speed = way, table, speed
        self._free, self._begun = workers, 0
        self._queue: list[tuple[float, int, _Running]] = []  # when the slice ends; the order of begin breaks ties
        self._now, self._done = 0.0, 0

    def run(self) -> Iterator[Step]:
        """Results for ever, or until the way has nothing more to try."""
        while self._fill():
            self._now, order, trial = heapq.heappop(self._queue)
            self._done += trial.slice
            step = self._judge(trial)
            if step.end:
                self._free += 1
            else:
                trial.rung, trial.began = trial.rung + 1, self._now
                heapq.heappush(self._queue, (self._ends(trial), order, trial))
            yield step

    def _fill(self) -> bool:
        """Give every free worker a trial; whether anything runs."""
        while self._free and (point := self._way.suggest(name := f"t{self._begun}")):
            trial = _Running(name, point, self._table.curves[point], self._now)
            heapq.heappush(self._queue, (self._ends(trial), self._begun, trial))
            self._begun, self._free = self._begun + 1, self._free - 1
        return bool(self._queue)

    def _ends(self, trial: _Running) -> float:
        return trial.began + trial.curve.seconds[trial.rung] / self._speed

    def _judge(self, trial: _Running) -> Step:
        """Tell the way of the result at which a trial has arrived, and its end if it is one."""
        windows, score = trial.curve.windows_seen[trial.rung], trial.curve.scores[trial.rung]
        if math.isnan(score):
            end = "failed"
        elif windows >= self._table.recipe.rungs[-1]:
            end = "complete"
        else:
            end = "" if self._way.report(trial.name, windows, score) else "pruned"
        if end:
            self._way.end(trial.name, windows, score)
        best = math.nan if end == "failed" else min(trial.curve.scores[: trial.rung + 1])
        return Step(trial.point, best, self._now, self._windows(), end)

    def _windows(self) -> float:
        under_way = 0.0
        for ends, _, trial in self._queue:
            under_way += trial.slice * (self._now - trial.began) / (ends - trial.began)
        return self._done + under_way
