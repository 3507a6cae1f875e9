"""One driver at a time: a lease on a sweep's folder with a heartbeat."""

from __future__ import annotations

import _thread
import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chronotune.errors import ChronotuneError, InputError

HEARTBEAT_SECONDS = 10
STALE_SECONDS = 60

log = logging.getLogger("chronotune.lease")


class Lease:
    """Held while a process drives a sweep; a context manager.

    A holder that is dead on this host is taken over at once, one on another host, or of before this one was started
    again, when its heartbeat is older than `STALE_SECONDS`. A live holder is named in the refusal. A holder that was
    taken over, e.g. after its machine slept, is interrupted at its next beat and leaves the other's lease alone.

    Raises:
        InputError: Another process drives the sweep.
        ChronotuneError: At the end: another process took the lease meanwhile.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lease.json"
        self._own: dict[str, Any] = {}
        self._taken_by: dict[str, Any] | None = None
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._keep_beating, name="lease", daemon=True)

    def __enter__(self) -> Self:
        """Take the lease and start the heartbeat."""
        self._own = identity()
        while not _create(self.path, self._own):
            holder = read_holder(self.path.parent)
            if holder is not None and is_alive(holder):
                raise InputError(
                    f"{self.path.parent}: one driver at a time, but process {holder['pid']} on {holder['host']} is "
                    f"driving this sweep. Wait for it, or stop it with Ctrl-C, then try again"
                )
            _remove_if_same(self.path, holder)
        self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lease back, if it is still one's own."""
        self._stop.set()
        self._beat.join()
        if self._taken_by and isinstance(error, KeyboardInterrupt | None):
            raise ChronotuneError(
                f"{self.path.parent}: one driver at a time, but process {self._taken_by['pid']} on "
                f"{self._taken_by['host']} took this sweep over while this one gave no sign. It goes on there"
            ) from error
        with suppress(OSError):  # a lease that stays behind is seen to be a dead one's
            if _is_same(read_holder(self.path.parent), self._own):
                self.path.unlink(missing_ok=True)

    def _keep_beating(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                self._taken_by = self._renew()
            except OSError as error:  # storage that fails now may answer at the next beat
                log.warning("the lease %s could not be renewed: %s", self.path, error)
            if self._taken_by:
                _interrupt_main_thread()
                return

    def _renew(self) -> dict[str, Any] | None:
        """Write the time of this beat; returns another holder if there is one, and then writes nothing."""
        now = {**self._own, "heartbeat": time.time()}
        holder = _read(self.path)
        if holder is None:
            _create(self.path, now)  # only where there is none: another may take it at this moment
        elif not _is_same(holder, now):
            return holder
        else:
            _replace(self.path, now)
        return None


def read_holder(directory: Path) -> dict[str, Any] | None:
    """Who holds the lease of a sweep's folder; None when nobody does or the file is unreadable."""
    try:
        return _read(directory / "lease.json")
    except OSError:
        return None


def is_alive(holder: dict[str, Any]) -> bool:
    """Whether the holder still drives: its process on this host, its heartbeat on another.

    One of this host's name, but of another boot, may be of a host that has the same name.
    """
    if not is_here(holder) or holder["boot"] != _boot_id():
        return bool(time.time() - holder["heartbeat"] < STALE_SECONDS)
    return bool(holder.get("started") == _started(holder["pid"]))


def is_here(holder: dict[str, Any]) -> bool:
    """Whether the holder is a process of this host, and of this container on it, so that it can be seen from here."""
    return bool(holder["host"] == socket.gethostname() and holder.get("numbers", "") == _numbers())


def identity() -> dict[str, Any]:
    """This process, so that it can be told from any other: host, boot, numbers, number and start, and the time now."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "started": _started(pid),
        "boot": _boot_id(),
        "numbers": _numbers(),
        "heartbeat": time.time(),
    }


def is_holder(value: object) -> bool:
    """Whether `value`, read from a file, is an `identity`."""
    return isinstance(value, dict) and {"host", "pid", "boot", "heartbeat"} <= value.keys()


def _is_same(one: dict[str, Any] | None, other: dict[str, Any]) -> bool:
    """Whether both are one process, at whatever beat."""
    return one is not None and all(one.get(key) == other.get(key) for key in ("host", "pid", "boot", "started"))


def _interrupt_main_thread() -> None:
    """Ctrl-C from a thread, which ends a wait of the main thread too where the system can do that."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as in a shell's background; SIGTERM does the same
        signal.pthread_kill(main, signal.SIGTERM if ignored else signal.SIGINT)
    else:
        _thread.interrupt_main()


def _started(pid: int) -> float | None:
    """When process `pid` began (a number that tells it from a later one of the same id); None when there is none."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux: the process's start time alone must do
        return ""


def _numbers() -> str:
    """Whose process numbers this process has: containers on one host have their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _read(path: Path) -> dict[str, Any] | None:
    """The holder in a lease file; None when there is no file, or it holds something else."""
    try:
        holder = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return holder if is_holder(holder) else None


def _temporary(path: Path, content: dict[str, Any]) -> Path:
    """A complete file beside `path`, under a name that no process of any host shares."""
    temporary = path.with_suffix(f".{uuid.uuid4().hex}")
    try:
        temporary.write_text(json.dumps(content))
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _create(path: Path, content: dict[str, Any]) -> bool:
    """Create the lease file with its contents in one step; False when it exists."""
    temporary = _temporary(path, content)
    try:
        os.link(temporary, path)  # atomic, and unlike rename it fails when the lease is taken
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _replace(path: Path, content: dict[str, Any]) -> None:
    temporary = _temporary(path, content)
    try:
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_if_same(path: Path, holder: dict[str, Any] | None) -> None:
    """Remove a dead holder's lease, unless it has been renewed or replaced meanwhile."""
    if read_holder(path.parent) == holder:
        path.unlink(missing_ok=True)
