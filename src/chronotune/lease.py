"""One driver at a time: a lease on a sweep's folder with a heartbeat."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chronotune.errors import InputError

HEARTBEAT_SECONDS = 10
STALE_SECONDS = 60


class Lease:
    """Held while a process drives a sweep; a context manager.

    A holder that is dead on this host is taken over at once, one on another host when its heartbeat is
    older than `STALE_SECONDS`. A live holder is named in the refusal.

    Raises:
        InputError: Another process drives the sweep.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lease.json"
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._keep_beating, name="lease", daemon=True)

    def __enter__(self) -> Self:
        """Take the lease and start the heartbeat."""
        while not _create(self.path, _identity()):
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
        """Give the lease back."""
        self._stop.set()
        self._beat.join()
        self.path.unlink(missing_ok=True)

    def _keep_beating(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            temporary = self.path.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(_identity()))
            temporary.replace(self.path)


def read_holder(directory: Path) -> dict[str, Any] | None:
    """Who holds the lease of a sweep's folder; None when nobody does or the file is unreadable."""
    try:
        holder = json.loads((directory / "lease.json").read_text())
    except (OSError, ValueError):
        return None
    return holder if isinstance(holder, dict) and {"host", "pid", "boot", "heartbeat"} <= holder.keys() else None


def is_alive(holder: dict[str, Any]) -> bool:
    """Whether the holder still drives: its process on this host, its heartbeat on another."""
    if holder["host"] != socket.gethostname():
        return bool(time.time() - holder["heartbeat"] < STALE_SECONDS)
    return holder["boot"] == _boot_id() and holder.get("started") == _started(holder["pid"])


def _identity() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "started": _started(pid),
        "boot": _boot_id(),
        "heartbeat": time.time(),
    }


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


def _create(path: Path, identity: dict[str, Any]) -> bool:
    """Create the lease file with its contents in one step; False when it exists."""
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(identity))
    try:
        os.link(temporary, path)  # atomic, and unlike rename it fails when the lease is taken
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _remove_if_same(path: Path, holder: dict[str, Any] | None) -> None:
    """Remove a dead holder's lease, unless another process has replaced it meanwhile."""
    if read_holder(path.parent) == holder:
        path.unlink(missing_ok=True)
