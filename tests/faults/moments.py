"""Named moments of a sweep, and what happens there; `inject/sitecustomize.py` sees to it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from chronotune.errors import WORKER_LOST


@dataclass(frozen=True)
class Moment:
    """The call of a function, and what happens when it is reached."""

    told: str
    module: str
    name: str
    call: int
    ends: Literal["driver", "self", "hang", "sleep", "raise", "nan"] = "driver"
    times: int = 1
    about: str = ""
    """Only calls count that have this in their arguments."""
    fails: str = ""
    """What is in the reason of a trial that fails for it."""

    def environment(self, marks: Path) -> str:
        """What CHRONOTUNE_FAULT is set to; every time that the moment is reached leaves a file in `marks`."""
        return json.dumps({**asdict(self), "marks": str(marks)})


_LOSS = ("chronotune.finetune", "FineTuner._loss", 6)
_LOSS_OF_TRIAL_1 = ("chronotune.finetune", "FineTuner._loss", 14)
_DIGEST = ("chronotune.checkpoint", "sha256", 1)

MOMENTS = {
    "drawing": Moment("driver, while a trial's parameters are drawn", "chronotune.sampler", "_suggest", 11),
    "report": Moment("driver, between checkpoint and report", "chronotune.tuner", "_Recorder.on_trial_result", 3),
    "tell": Moment("driver, between report and tell", "chronotune.study", "Study.finish", 2),
    "lock": Moment(
        "driver, while it holds the journal's lock",
        "optuna.storages.journal._file",
        "JournalFileSymlinkLock.release",
        40,
    ),
    "checkpoint": Moment("driver, inside a worker's checkpoint write", *_DIGEST, about=".48.partial/state"),
    "finalist": Moment("driver, inside a finalist's checkpoint", *_DIGEST, about="finalists/0000/.48.partial/state"),
    "repeat": Moment("driver, when a finalist's repeat begins", "chronotune.study", "Study.repeat", 2),
    "winner": Moment("driver, before the winner is written", "chronotune.sweep", "write_winner", 1),
    "evaluation": Moment("driver, before the test is evaluated", "chronotune.sweep", "evaluate_sweep", 1),
    "ended": Moment("driver, when the end is noted, not told", "chronotune.sweep", "_report", 1),
    "worker": Moment("worker, in mid-step, twice in one trial", *_LOSS, "self", 2),
    "writer": Moment("worker, inside a checkpoint write", *_DIGEST, "self", about=".48.partial/state"),
    "next": Moment(
        "worker, when it is given its next trial", "chronotune.trial", "FineTuneTrial.reset_config", 1, "self"
    ),
    "hang": Moment("a trial hangs in native code", *_LOSS, "hang"),
    "sleep": Moment("a trial hangs in Python", *_LOSS, "sleep"),
}
"""All that end in the trials of an undisturbed sweep, resumed where the driver died."""

RAISES = Moment("a trial raises", *_LOSS_OF_TRIAL_1, "raise", fails="planted")
NAN = Moment("the loss turns NaN", *_LOSS_OF_TRIAL_1, "nan", fails="the loss was nan")
LOST = Moment("worker of a finalist's repeat, thrice", *_DIGEST, "self", 3, "finalists/0000/.48.partial/state")
THRICE = Moment("worker, thrice in one trial", *_DIGEST, "self", 3, "0001/.16.partial/state", WORKER_LOST)
EXTENDING = Moment("driver, before an extension is noted", "chronotune.study", "Study.note", 3)
EXTENDED = Moment("driver, just after an extension began", "chronotune.sampler", "_suggest", 3)
