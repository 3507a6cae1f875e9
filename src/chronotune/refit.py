"""The refit: the winner's training repeated on training and validation, for an export that nothing has measured.

What was verified stays the winner: evaluation and verdict are on its weights, and the refit comes after them. It sees
as many windows as the winner's best checkpoint, under the same schedule: how long to train was found on validation,
which a refit has no longer, so more windows for more data would be a guess that nothing could correct.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from chronotune.again import REFITTING
from chronotune.challenger import winner_record
from chronotune.checkpoint import appearing
from chronotune.data.panel import Panel
from chronotune.export import REFITTED, WEIGHTS, declare
from chronotune.gate import UNVERIFIED
from chronotune.study import Study, TrialRecord
from chronotune.trial import Assignment


class Refitter(Protocol):
    """A worker that trains on validation too: `again.LastWorker`, or `RemoteWorker`."""

    def refit(self, record: TrialRecord, folder: Path) -> Mapping[str, Any]:
        """Write the weights of a training's refit into `folder`; the attributes of its last result."""


def refit(study: Study, assignment: Assignment, worker: Refitter, panel: Panel) -> None:
    """Fill `refitted/` of the sweep's folder, if the recipe wants it and this winner has none yet, and note it.

    A driver that is killed leaves checkpoints, from which the next one goes on.

    Args:
        study: Open for writing; its `winner` gets `refit`, the mark, and `refit_sha256`.
        assignment: What all trials share.
        worker: Trains.
        panel: All data, for the encodings of categories.

    Raises:
        ChronotuneError: Training fails; the next driver tries again.
    """
    winner, folder = study.attribute("winner"), assignment.directory / REFITTED
    if not assignment.recipe.finalists.refit:
        return
    if not _is_there(winner, folder):
        record = winner_record(study.read())
        with appearing(folder) as draft:
            digest = declare(draft, assignment.recipe, record, panel, worker.refit(record, draft), refitted=True)
        study.note("winner", {**winner, "refit": UNVERIFIED, "refit_sha256": digest})
    shutil.rmtree(assignment.directory / REFITTING, ignore_errors=True)


def _is_there(winner: Mapping[str, Any], folder: Path) -> bool:
    return "refit_sha256" in winner and (folder / WEIGHTS).exists()
