"""One driver at a time: a lease on a sweep's folder with a heartbeat."""

from __future__ import annotations

import _thread
import json
import logging
import os
import signal
import socket
import tempfile
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
    again, when its heartbeat is older than `STALE_SECONDS` by the file server's clock. A live holder is named in the
    refusal. A holder that was taken over, e.g. after its machine slept, is interrupted at its next beat and leaves the
    other's lease alone.

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
        if holder := _take(self.path, self._own):
            raise InputError(
                f"{self.path.parent}: one driver at a time, but process {holder['pid']} on {holder['host']} is "
                f"driving this sweep. Wait for it, or stop it with Ctrl-C, then try again"
            )
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
            if _is_same(_read(self.path), self._own):
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
    """Who holds the lease of a sweep's folder; None when nobody does or the file is unreadable.

    The heartbeat of a holder that cannot be seen from here is given by this host's clock, whatever its own one shows.
    """
    try:
        return _look(directory / "lease.json")
    except OSError:
        return None


def other_driver(directory: Path) -> dict[str, Any] | None:
    """Who drives the sweep of a folder now, unless it is this process; None when nobody does."""
    holder = read_holder(directory)
    if holder is None or (is_here(holder) and holder["pid"] == os.getpid()):
        return None
    return holder if is_alive(holder) else None


def is_alive(holder: dict[str, Any]) -> bool:
    """Whether the holder still drives: its process on this host, its heartbeat on another.

    One of this host's name, but of another boot, may be of a host that has the same name.
    """
    if not _is_seen(holder):
        return bool(time.time() - holder["heartbeat"] < STALE_SECONDS)
    return bool(holder.get("started") == _started(holder["pid"]))


def is_here(holder: dict[str, Any]) -> bool:
    """Whether the holder is a process of this host, and of this container on it, so that it can be seen from here."""
    return bool(holder["host"] == socket.gethostname() and holder.get("numbers", "") == _numbers())


def _is_seen(holder: dict[str, Any]) -> bool:
    """Whether its process, rather than its heartbeat, tells if it lives."""
    return is_here(holder) and bool(holder["boot"] == _boot_id())


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
    """When process `pid` began (a number that tells it from a later one of the same id); None when there is none.

    On Linux in ticks since the start of the system: a time of day, as psutil gives it, shifts when the clock is set.
    """
    if Path("/proc/self/stat").exists():
        try:
            state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if state == "Z" else float(numbers[18])  # proc(5): field 22, of which 3 come before `numbers`
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
        return _read_dated(path)[0]
    except FileNotFoundError:
        return None


def _read_dated(path: Path) -> tuple[dict[str, Any] | None, float]:
    """The holder in a lease file, None when it holds something else, and when the file was written."""
    with path.open() as file:
        written = os.fstat(file.fileno()).st_mtime  # not of the path: a beat may replace it in between
        try:
            holder = json.load(file)
        except ValueError:
            holder = None
    return holder if is_holder(holder) else None, written


def _look(path: Path) -> dict[str, Any] | None:
    """The holder in a lease file; a heartbeat that must tell whether it lives, dated by this host's clock.

    Each beat is a new file, so the file's age is that of the beat. Two times of the file server make it: the hosts'
    clocks may differ.
    """
    holder, _ = _read_dated(path)
    if holder is None or _is_seen(holder):
        return holder
    now = _server_time(path.parent)  # before the beat is read: a delay in between makes it no older
    holder, written = _read_dated(path)
    return holder and {**holder, "heartbeat": time.time() - (now - written)}


def _server_time(directory: Path) -> float:
    """The clock that dates the files of a folder; this host's where nothing can be written."""
    try:
        with tempfile.TemporaryFile(dir=directory) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return time.time()


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


def _take(path: Path, own: dict[str, Any]) -> dict[str, Any] | None:
    """Create the lease file, in place of a dead holder's if need be; returns the live one that keeps it from that."""
    while not _create(path, own):
        with suppress(FileNotFoundError):  # given back meanwhile
            if holder := _living(path) or _bury(path, own):
                return holder
    return None


def _living(path: Path) -> dict[str, Any] | None:
    """The holder in a lease file; None when it is dead, or half a file.

    Raises:
        FileNotFoundError: There is no lease.
    """
    holder = _look(path)
    return holder if holder is not None and is_alive(holder) else None


def _bury(path: Path, own: dict[str, Any]) -> dict[str, Any] | None:
    """Remove a dead holder's lease, while holding the lease of doing so; returns the live one that has that one.

    Of several that found it dead, a slow one would otherwise remove the lease of the one that came after the dead. One
    that is suspended for a minute between its last look and the removal still could; the next beat tells.

    Raises:
        FileNotFoundError: There is no lease.
    """
    right = path.with_name(f"{path.name}.heir")
    if holder := _take(right, own):
        return holder
    try:
        if _living(path) is None and _is_same(_read(right), own):
            path.unlink()
    finally:
        if _is_same(_read(right), own):
            right.unlink(missing_ok=True)
    return None
