"""How often the values of a test segment have been looked at: by one sweep, and by all sweeps in one place.

Each opening is an empty file, `.openings/DATA/TIME-SWEEP-NUMBER` beside the sweeps: its name alone counts. So no lock
is needed, two sweeps may open at once, nothing can be torn, and removing a sweep takes nothing away. Every test segment
ends where the data end, so two of the same data share values, whatever their lengths, horizons and covariates: DATA is
the target's fingerprint.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger("chronotune.openings")

FOLDER = ".openings"


@dataclass(frozen=True)
class Openings:
    """Two counts of the same, this opening among them."""

    own: int | None = None
    """By the sweep that is evaluated; None where it is none."""
    here: int | None = None
    """By all sweeps beside it on the same target, those that were removed too, and by models that were evaluated beside
    them; None where it cannot be known."""

    @classmethod
    def of(cls, evaluation: Mapping[str, Any]) -> Openings:
        """What an evaluation holds of `as_dict`, in whichever version it was made."""
        return cls(evaluation.get("test_openings"), evaluation.get("test_openings_here"))

    def as_dict(self) -> dict[str, int | None]:
        """As evaluations and verdicts hold them."""
        return {"test_openings": self.own, "test_openings_here": self.here}

    @property
    def most(self) -> int:
        """The larger one; 0 when neither is known."""
        return max(self.own or 0, self.here or 0)

    def __str__(self) -> str:
        """`opened once`, or `opened once by this sweep, 7 times in all by the sweeps here`.

        Where only one count is known, it says whose it is; `most` is 0 where neither is, and there is nothing to say.
        """
        if self.own is None:
            return f"opened {times(self.here or 0)} in all here"
        if self.here == self.own:
            return f"opened {times(self.own)}"
        others = "" if self.here is None else f", {times(self.here)} in all by the sweeps here"
        return f"opened {times(self.own)} by this sweep{others}"


def times(count: int) -> str:
    """`once`, `3 times`."""
    return "once" if count == 1 else f"{count} times"


def count_beside(place: Path, data: str, sweep: str, moments: Sequence[str]) -> int | None:
    """Note all openings of a sweep, the earlier ones too if they are not there, and count those of every sweep.

    Args:
        place: The folder that the sweeps are in.
        data: Fingerprint of the target.
        sweep: What tells the sweep from every other one, also from an earlier one of its name.
        moments: Its openings, as ISO 8601 has times, oldest first.

    Returns:
        How many there are in `place` and among these; a warning when they cannot be noted, and None when those that
        are there cannot be read either.
    """
    folder = place / FOLDER / data
    own = {f"{re.sub('[^0-9T]', '', moment)}-{sweep}-{number}" for number, moment in enumerate(moments, start=1)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in own:
            (folder / name).touch()
    except OSError as error:
        log.warning("this opening of the test segment is not noted beside the sweeps, so later ones miss it: %s", error)
    try:
        return len(own | {file.name for file in folder.iterdir()})
    except OSError:
        return None


def is_counted_beside(place: Path, data: str) -> bool:
    """Whether a sweep in `place` has opened the test segment of these data."""
    return (place / FOLDER / data).is_dir()
