"""torch's threads of one training run: its own, and those of idle slots, which the last trials of a sweep are lent.

The number of threads changes the last bits of what is trained. So which steps had how many is part of a run, recorded
and repeated as the splits of its batches are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from chronotune.memory import Splits, count_at

LENT = ".threads"
"""File of a sweep's folder: how many threads each running trial may use now."""
_IDLE = 0.8
"""Share of the lent threads' time that the machine must have had nothing to do before they are taken."""
_PATIENCE = 2.0
"""Steps whose time may be lost by more threads: on cores that others use, too, they wait for each other."""


class Threads:
    """Says before each optimizer step how many threads it has.

    Attributes:
        used: Pairs as in `memory.Splits`: from which step on, how many threads.
    """

    def __init__(self, own: int, lent: Callable[[], int] = lambda: 0, planned: Splits = ()) -> None:
        """Begin with one's own.

        Args:
            own: Of a trial.
            lent: How many a trial may have now; what is not more than its own is no loan.
            planned: Of a run to repeat: then nothing is taken.
        """
        self._own, self._lent, self._planned = own, lent, planned
        self.used = list[tuple[int, int]]()
        self._count, self._refused = own, False
        self._last: tuple[float, float, int] | None = None  # seconds, idle seconds of all cores, windows seen
        self._pace = self._lost = 0.0  # seconds a window with its own, seconds lost with more

    def before_step(self, step: int, windows_seen: int) -> None:
        """Set torch's threads for the step that comes, in the thread that takes it, and note them."""
        self._count = count_at(self._planned, step) or self._chosen(windows_seen)
        if count_at(self.used, step) != self._count:
            self.used.append((step, self._count))
        use_threads(self._count)

    def rest(self) -> None:
        """One's own again, for all that is not training: scores are measured with the same number always."""
        self._last = None
        use_threads(self._own)

    def _chosen(self, windows_seen: int) -> int:
        lent, more = self._lent(), self._count > self._own
        if lent <= self._own or self._refused:
            self._last = None
            return self._own
        last, self._last = self._last, (time.perf_counter(), psutil.cpu_times().idle, windows_seen)
        if last is None:  # the first step of a slice, or of a loan
            return lent if more else self._own
        seconds, idle, windows = (now - before for now, before in zip(self._last, last, strict=True))
        if not more:
            self._pace = seconds / windows
            return lent if idle >= _IDLE * (lent - self._own) * seconds else self._own
        self._lost += seconds - self._pace * windows
        self._refused = self._lost > _PATIENCE * self._pace * windows
        return self._own if self._refused else lent


def lend(directory: Path, count: int) -> None:
    """Tell the trials of a sweep how many threads each may use; 0: its own. That it cannot be told ends no sweep."""
    with suppress(OSError):
        if count:
            (directory / LENT).write_text(str(count))
        else:
            (directory / LENT).unlink(missing_ok=True)


def lent(directory: Path) -> int:
    """How many threads each trial may use; 0 when nothing is lent."""
    try:
        return int((directory / LENT).read_text())
    except (OSError, ValueError):  # none, or just being written
        return 0


def use_threads(count: int) -> None:
    """Let torch use `count` threads: more threads than cores make steps many times slower."""
    import torch

    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
