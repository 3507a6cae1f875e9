"""How a process ends before its work is done.

A worker, because it is stuck or its machine is taken away; a driver, because it is told to or its disk takes nothing.
"""

from __future__ import annotations

import errno
import faulthandler
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from chronotune.errors import ChronotuneError, StorageError

_ASK_SECONDS = 5.0
"""How often a worker asks whether its node is being given up."""


_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}


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
        """Somebody asks inside the block or at its end. Outside, and at a second signal, the process ends unasked."""
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


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end the sweep in order, as Ctrl-C does: the handler that Ray sets when it connects exits at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals cannot be handled here
        return
    before = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _as_interrupt(*_: Any) -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts what it puts into the background
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


@contextmanager
def halting_when_unwritable(directory: Path) -> Iterator[None]:
    """Tell what to do when a sweep's folder takes nothing any more: what was recorded is there, and resume goes on.

    Raises:
        StorageError: In place of an error of the disk.
    """
    try:
        yield
    except ChronotuneError:
        raise
    except Exception as error:
        if (cause := _unwritable(error)) is None:
            raise
        raise StorageError(
            f"a sweep writes into its folder, but {directory} takes nothing any more: {cause.strerror or cause}; "
            f"check rights and free space, then `chronotune resume {directory}`"
        ) from error


def _unwritable(error: BaseException | None) -> OSError | None:
    """The disk's own complaint behind an error, which Ray Tune wraps in one of its own; None if there is none."""
    while error is not None:
        if isinstance(error, OSError) and (error.errno in _UNWRITABLE or isinstance(error, shutil.Error)):  # of a copy
            return error
        error = error.__cause__ or error.__context__
    return None
