"""The file that a study is written to: Optuna's journal, in which what belongs together reaches the disk at once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import RawIOBase
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from chronotune.errors import StorageError


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

    A wait takes milliseconds, and a result is two lines. No kill of the process loses what was written; should the
    machine itself go down, what is lost is lost from the end.

    Args:
        storage: For one that is no journal this does nothing.
        synced: False: not even at the end, because more follows at once that is waited for.
    """
    return storage.together(synced) if isinstance(storage, Journal) else nullcontext()


class _File(JournalFileBackend):
    def __init__(self, path: str) -> None:
        self._path, self._mutex, self._waits = path, JournalFileSymlinkLock(path), True
        self._read = 0, 0  # lines, and their bytes: Optuna's own backend keeps the place of every line
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

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Lines from that number on; a last one that is still being written is left for the next time.

        Raises:
            StorageError: A line that is not the last is none.
        """
        number, place = self._read if self._read[0] <= log_number_from else (0, 0)
        with open(self._path, "rb") as file:
            file.seek(place)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                log = _decoded(line) if (number := number + 1) > log_number_from else {}
                if log is None:
                    if not file.readline():  # on a network's disk the length can come before the content
                        return
                    raise StorageError(
                        f"{self._path}: a line of the journal is a JSON object, but line {number} is damaged. Put a "
                        f"copy of the file back; without one, cut it off before that line, which gives up what was "
                        f"recorded later"
                    )
                self._read = number, (place := place + len(line))
                if number > log_number_from:
                    yield log

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


def _with_shared_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a line: the names of metrics and attributes are the same in all results, and are kept once."""
    return {sys.intern(key): value for key, value in pairs}


_DECODER = json.JSONDecoder(object_pairs_hook=_with_shared_keys)


def _decoded(line: bytes) -> dict[str, Any] | None:
    """What a line holds; None when it is damaged."""
    try:
        found: dict[str, Any] = _DECODER.decode(line.decode())
    except ValueError:
        return None
    return found


def _write(file: RawIOBase, content: bytes) -> None:
    """All of it: a disk that is nearly full takes a part."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) or 0 :]
