"""A checkpoint that shall be exported but is damaged or gone is trained again: a training is repeatable."""

from __future__ import annotations

import logging
from pathlib import Path

from chronotune.config.space import Hyperparameters
from chronotune.errors import ChronotuneError
from chronotune.search import BUDGET
from chronotune.stores import trial_key
from chronotune.trial import TrialRun, Worker, log_file, log_name, use_threads

log = logging.getLogger("chronotune.again")


class LastWorker(Worker):
    """The worker that works on the winner, after all trials: what it cannot read of them, it makes again."""

    def export(
        self, number: int, point: Hyperparameters, windows_seen: int, folder: Path, seed: int | None = None
    ) -> None:
        """As `Worker.export`; when the checkpoint cannot be read, its training is repeated first.

        With as many threads as the trial had, and on the same kind of device, that gives the same weights.

        Raises:
            ChronotuneError: It cannot be trained again either.
        """
        try:
            super().export(number, point, windows_seen, folder, seed)
        except ChronotuneError as error:
            directory = self.assignment.directory
            with log_file(directory, log_name(number, repeat=seed is not None)):
                log.warning("%s; it is trained again up to %d windows", error, windows_seen)
                self.assignment.store.remove(trial_key(number, repeat=seed is not None))
                self._train_again(TrialRun(self, number, point, seed), windows_seen)
            super().export(number, point, windows_seen, folder, seed)

    def _train_again(self, run: TrialRun, windows_seen: int) -> None:
        use_threads(self.assignment.recipe.cluster.cpus_per_trial)  # the last bits depend on their number
        try:
            for result in run.results():
                if result[BUDGET] >= windows_seen:
                    return
        finally:
            use_threads(self._threads)
