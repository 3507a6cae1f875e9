"""The winner trained once more: where its checkpoint is damaged or gone, and on more data where its recipe says so."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from chronotune.endings import ToldToGo, ended_when_stuck
from chronotune.errors import CheckpointLostError, ChronotuneError
from chronotune.logs import log_file, log_name
from chronotune.memory import pairs
from chronotune.records import BUDGET, OBJECTIVE, Result, TrialRecord
from chronotune.threads import use_threads
from chronotune.trial import Assignment, TrialRun, Worker, _device

log = logging.getLogger("chronotune.again")

REFITTING = ".refit"
"""Folder of a sweep for the checkpoints of a refit, until it is noted."""
SAME = 1e-6
"""Relative difference of two scores that the same training may have: rounding, and no more."""


class LastWorker(Worker):
    """The worker that works on the winner, after all trials: what is lost of it, it makes again."""

    def export_best(self, record: TrialRecord, folder: Path) -> None:
        """Write the plain weights of a training's best result into `folder`; where they are lost, train them again.

        With its steps split as its were, as many threads for each, and on the same kind of device, that gives the same
        weights. It happens in a folder of its own: the checkpoint stays as it is.

        Raises:
            ChronotuneError: The checkpoint cannot be read now, or training it again fails or reaches another score.
        """
        assert record.best is not None
        scratch = self.assignment.directory / ".again"
        if (lost := self._lost(record, record.best, folder)) is not None:
            with log_file(self.assignment.directory, log_name(record.number, repeat=record.seed is not None)) as file:
                log.warning("%s; it is trained again up to %d windows", lost, record.best.windows_seen)
                self._train_again(record, record.best, scratch, folder, file)
        shutil.rmtree(scratch, ignore_errors=True)  # kept until now, for another driver to go on

    def refit(self, record: TrialRecord, folder: Path) -> Mapping[str, Any]:
        """Train the winner's configuration on training and validation, and write its plain weights into `folder`.

        Seed, schedule, rungs and the number of windows are those of its best result. Checkpoints are kept in the
        sweep's folder, for another driver to go on, until the caller removes them (`REFITTING`).

        Returns:
            The attributes of its last result: how steps were computed.

        Raises:
            ChronotuneError: Training fails, or its checkpoints cannot be written.
        """
        assert record.best is not None
        assert record.hyperparameters is not None
        ahead = refitting(self.assignment, record.best.windows_seen)
        with (
            log_file(self.assignment.directory, log_name(record.number, repeat=record.seed is not None)) as file,
            self._as_in_a_trial(ahead, lent=self._threads if _device().type == "cpu" else 0) as worker,
        ):
            log.info("trained once more, on validation too: its scores from here on measure nothing")
            run = TrialRun(worker, record.number, record.hyperparameters, record.seed)
            *_, last = self._results(run, file)
            run.export(last[BUDGET], folder)
        attributes: Mapping[str, Any] = last["attributes"]
        return attributes

    def _results(self, run: TrialRun, file: TextIO) -> Iterator[dict[str, Any]]:
        """The run's results. A step that hangs ends this process, as does a node that is given up: another goes on."""
        results = run.results()
        while True:
            with ended_when_stuck(self.assignment.recipe.budget.stuck_minutes, file):
                try:
                    result = next(results, None)
                except ToldToGo:
                    os._exit(1)
            if result is None:
                return
            yield result

    @contextmanager
    def _as_in_a_trial(self, assignment: Assignment, lent: int = 0) -> Iterator[Worker]:
        """A worker with the threads of a trial, on whose number the last bits depend, and those that are lent to it."""
        worker = Worker(assignment, self.assignment.recipe.cluster.cpus_per_trial, lent=lambda: lent)
        worker._base = self.base
        use_threads(worker._threads)
        try:
            yield worker
        finally:
            use_threads(self._threads)

    def _lost(self, record: TrialRecord, best: Result, folder: Path) -> str | None:
        """Why the weights cannot be exported any more; None when they have been."""
        assert record.hyperparameters is not None
        try:
            self.export(record.number, record.hyperparameters, best.windows_seen, folder, record.seed)
        except CheckpointLostError as error:  # it holds on to the model: let it go before another is trained
            return str(error)
        return None

    def _train_again(self, record: TrialRecord, best: Result, scratch: Path, folder: Path, file: TextIO) -> None:
        assert record.hyperparameters is not None
        with self._as_in_a_trial(_repeating(self.assignment, best, scratch)) as worker:
            run = TrialRun(worker, record.number, record.hyperparameters, record.seed)
            score = next(one[OBJECTIVE] for one in self._results(run, file) if one[BUDGET] >= best.windows_seen)
            if not math.isclose(score, best.objective, rel_tol=SAME):
                shutil.rmtree(scratch, ignore_errors=True)  # elsewhere it begins anew
                raise ChronotuneError(_another(score, best))
            run.export(best.windows_seen, folder)


def refitting(assignment: Assignment, windows: int) -> Assignment:
    """The same for a refit: validation is trained on too, up to as many windows, checkpoints in `REFITTING`."""
    from chronotune.data.prepare import with_validation  # Polars comes with it, which nothing else here needs

    budget = assignment.recipe.budget.model_copy(update={"stop_at": windows})
    return replace(
        assignment,
        recipe=assignment.recipe.model_copy(update={"budget": budget}),
        data=with_validation(assignment.data),
        checkpoints=str(assignment.directory / REFITTING),
    )


def _repeating(assignment: Assignment, best: Result, scratch: Path) -> Assignment:
    """The same, with steps computed as they were, and checkpoints in a folder of its own."""
    course = {key: pairs(best.attributes, key) or None for key in ("splits", "threads")}
    budget = assignment.recipe.budget.model_copy(update=course)
    recipe = assignment.recipe.model_copy(update={"budget": budget})
    return replace(assignment, recipe=recipe, checkpoints=str(scratch))


def _another(score: float, best: Result) -> str:
    where = f"{best.attributes.get('host', 'a machine')}, device {best.attributes.get('device', 'unknown')}"
    return (
        f"a winner that is trained again must reach its score, {best.objective:.6g}, but reached {score:.6g}. "
        f"Restore its checkpoint, or resume the sweep where it was trained: {where}"
    )
