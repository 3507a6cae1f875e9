"""Errors meant for users: each says the rule, the value and the next step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WORKER_LOST = "its worker died, or was stuck (budget.stuck_minutes), again and again; see its log"
"""Why a trial failed that did nothing wrong itself, as far as anybody knows."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with the user's input."""

    where: str
    """File and line, or the source of the value: `tuning/steel.yaml:12`, `--set`, `data.csv rows 3, 9`."""
    key: str
    """Dotted key or column; empty when the whole file is meant."""
    rule: str
    """What must hold, and the value that breaks it."""
    remedy: str
    """What to do next."""

    def __str__(self) -> str:
        """One line: place, key, rule and value, remedy."""
        subject = f"{self.where}: {self.key}: " if self.key else f"{self.where}: "
        return f"{subject}{self.rule}. {self.remedy}"


class ChronotuneError(Exception):
    """The run failed (exit code 1)."""

    exit_code = 1


class OutOfMemoryError(ChronotuneError):
    """Memory ran out, and computing fewer windows at once does not help."""


class CheckpointLostError(ChronotuneError):
    """A checkpoint is damaged or gone; one that only cannot be read now is not."""


class StorageError(ChronotuneError):
    """A sweep's folder or object store cannot be used, no fault of the trial that found out: the sweep halts."""


class InputError(ChronotuneError):
    """The user's input is wrong (exit code 2); holds every fault found, not only the first."""

    exit_code = 2

    def __init__(self, faults: Sequence[Fault] | str) -> None:
        """Take the faults, or one sentence when there is nothing to point at."""
        self.faults: tuple[Fault, ...] = () if isinstance(faults, str) else tuple(faults)
        super().__init__(faults if isinstance(faults, str) else "\n".join(map(str, self.faults)))
