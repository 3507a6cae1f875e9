"""The file that a study is written to: Optuna's journal, in which what belongs together reaches the disk at once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import RawIOBase
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock


class Journal(JournalStorage):
    """Optuna's storage over one file, for one writer at a time; `together` says what may wait for the disk."""

    def __init__(self, path: Path) -> None:
        # absolute: with a relative path Optuna waits for ever on a killed process's lock
        self._file = _File(str(path.resolve()))
        super().__init__(self._file)

    def together(self, synced: bool) -> AbstractContextManager[None]:
        """As the function `together`."""
        return self._file.together(synced)


def together(storage: BaseStorage, synced: bool = True) -> AbstractContextManager[None]:
    """Inside, each line of a journal is written as ever, but the disk is waited for only once, at the end.

    A wait takes milliseconds, and a new trial is ten lines. No kill of the process loses what was written; should the
    machine itself go down, what is lost is lost from the end.

    Args:
        storage: For one that is no journal this does nothing.
        synced: False: not even at the end, because more follows at once that is waited for.
    """
    return storage.together(synced) if isinstance(storage, Journal) else nullcontext()


class _File(JournalFileBackend):
    def __init__(self, path: str) -> None:
        self._path, self._mutex, self._waits = path, JournalFileSymlinkLock(path), True
        super().__init__(path, self._mutex)

    @contextmanager
    def together(self, synced: bool) -> Iterator[None]:
        self._waits = False
        try:
            yield
        finally:
            self._waits = True
            if synced:
                self._sync()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines, all or none, and wait for the disk unless they are written together with others."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._mutex.acquire()
        try:
            with open(self._path, "ab", buffering=0) as file:
                whole = file.seek(0, os.SEEK_END)
                try:
                    _write(file, lines.encode())
                except BaseException:  # what comes next must not be glued to half a line
                    file.truncate(whole)
                    raise
        finally:
            self._mutex.release()
        if self._waits:
            self._sync()

    def _sync(self) -> None:
        with open(self._path, "rb") as file:
            os.fsync(file.fileno())


def _write(file: RawIOBase, content: bytes) -> None:
    """All of it: a disk that is nearly full takes a part."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) or 0 :]
