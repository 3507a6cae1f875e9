"""Where a trial's log goes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from chronotune.records import FINALISTS, ZERO_SHOT


def log_name(number: int | None, *, repeat: bool) -> str:
    """What the log of a trial, of a finalist's repeat or of the zero-shot scores (None) is called."""
    return ZERO_SHOT if number is None else f"{FINALISTS}/{number}" if repeat else str(number)


@contextmanager
def log_file(directory: Path, name: str) -> Iterator[TextIO]:
    """Send this package's log to `logs/<name>.log` of the sweep's folder, wherever the trial runs; the open file."""
    path = directory / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", encoding="utf-8")
    handler = logging.StreamHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("chronotune")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield file
    finally:
        root.removeHandler(handler)
        with suppress(OSError):  # a full disk: what must be written says so itself, a last line need not
            file.close()
