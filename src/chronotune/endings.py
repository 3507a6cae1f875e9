"""How a worker's process ends before its work is done: because it is stuck, or because its machine is taken away."""

from __future__ import annotations

import faulthandler
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

_ASK_SECONDS = 5.0
"""How often a worker asks whether its node is being given up."""


class ToldToGo(BaseException):  # as KeyboardInterrupt: no error, and not to be taken for one
    """The process must end now; what it has done is in a checkpoint."""


class Notice:
    """Whether this process, or its whole machine, is about to be ended, as a spot market tells some time before.

    Asked between two steps: true after a SIGTERM that came while something was going on, or when `is_given_up` says so.
    """

    def __init__(self, is_given_up: Callable[[], bool] = lambda: False) -> None:
        self._is_given_up, self._next = is_given_up, time.monotonic() + _ASK_SECONDS
        self._given = self._works = False
        self._before: Any = signal.SIG_DFL

    def listen(self) -> None:
        """Take SIGTERM from now on; outside the main thread that cannot be done."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._take)

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Somebody asks inside the block or at its end; outside, and at a second signal, the process ends at once."""
        self._works = True
        try:
            yield
        finally:
            self._works = False

    def __call__(self) -> bool:
        """Whether it is time to go."""
        if not self._given and time.monotonic() >= self._next:
            self._given = self._is_given_up()
            self._next = time.monotonic() + _ASK_SECONDS
        return self._given

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._works and not self._given:
            self._given = True
        elif callable(self._before):
            self._before(number, frame)
        else:
            raise SystemExit(128 + number)


@contextmanager
def ended_when_stuck(minutes: float | None, log_to: TextIO) -> Iterator[None]:
    """End this process when the block takes longer, whatever it does, also in native code that holds the interpreter.

    Args:
        minutes: Of wall time; None: for ever.
        log_to: Gets the stack of every thread before the end.
    """
    if minutes is None:
        yield
        return
    faulthandler.dump_traceback_later(60 * minutes, exit=True, file=log_to)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
