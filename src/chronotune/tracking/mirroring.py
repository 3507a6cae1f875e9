"""Mirroring a sweep while it runs, from a background thread, or once. No failure of MLflow reaches the sweep.

What a dead server missed is caught up when it returns, at the sweep's end, or by any later mirror.
"""

from __future__ import annotations

import logging
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chronotune.config.recipe import Tracking
from chronotune.config.storage import bad_tracking
from chronotune.errors import ChronotuneError, Fault, InputError
from chronotune.lease import is_alive, read_holder
from chronotune.study import Reader, Reading, TrialRecord, read
from chronotune.tracking.address import masked, resolve_uri
from chronotune.tracking.content import SWEEP, artifacts_of, key_of, runs_of, stamps_of, sweep_id
from chronotune.tracking.registry import Registry
from chronotune.tracking.runs import Runs, prepare_environment, quiet

log = logging.getLogger("chronotune.tracking")
_RETRY_SECONDS = 1.0
_FIRST = 5
"""How many pauses long the first is: importing MLflow would slow workers that start, and there is nothing to tell."""

LAST_SECONDS, _UPLOAD_SECONDS = 30.0, 900.0
"""How long the end of a sweep waits for a mirror that brings nothing; the second where weights may be uploaded."""

_LONGEST_SECONDS = 300.0
"""How long it waits for one that brings something again and again: a server may have come back a moment ago."""


@dataclass(frozen=True)
class MirrorReport:
    """How far a mirror is."""

    uri: str | None = None
    """The tracking URI without credentials; None when tracking is off."""
    points: int = 0
    """Metric values that this mirror wrote."""
    results: int | None = None
    """How many results of trials MLflow has, as far as this mirror knows; None when tracking is off."""
    version: str | None = None
    """The number that the winner has as a version of `tracking.registry`; None when it is none."""
    trouble: str | None = None
    """Why MLflow lacks part of the sweep, and what helps, in one line; None when it has everything."""


def mirror(directory: Path, tracking: Tracking, options: str = "") -> MirrorReport:
    """Bring MLflow up to date with a sweep, once: one that runs, was killed, or has finished.

    Args:
        directory: The sweep's folder.
        tracking: Where to mirror it.
        options: What `chronotune mirror` needs to do the same again.

    Returns:
        What was written. A failure of MLflow is its `trouble`, never an exception.

    Raises:
        InputError: `directory` holds no sweep, or the tracking URI is none.
    """
    if not tracking.enabled:
        return MirrorReport()
    copier = _Copier(directory, tracking, Reader(directory).read, options)
    holder = read_holder(directory)
    copier.persist(driven=holder is not None and is_alive(holder))
    return copier.report


def mirror_again(directory: Path, uri: str | None = None, experiment: str | None = None) -> MirrorReport:
    """`mirror` a sweep to where its recipe says, or elsewhere, also when its recipe turned tracking off.

    Args:
        directory: The sweep's folder.
        uri: A tracking server or database in place of the recipe's.
        experiment: An MLflow experiment in place of the recipe's.

    Raises:
        InputError: `directory` holds no sweep, or the tracking URI is none, or holds a password.
        ChronotuneError: MLflow did not take everything.
    """
    if faults := [Fault("--to", "", breach.rule, breach.remedy) for breach in bad_tracking(uri)]:
        raise InputError(faults)
    stored = read(directory).attributes["recipe"]["tracking"]
    wanted = {"uri": uri, "experiment": experiment}
    changes = {key: value for key, value in wanted.items() if value is not None}
    named = (("--to", uri), ("--experiment", experiment))
    options = "".join(f" {name} {shlex.quote(value)}" for name, value in named if value)
    report = mirror(directory, Tracking.model_validate({**stored, **changes, "enabled": True}), options)
    if report.trouble:
        raise ChronotuneError(report.trouble)
    return report


class Mirror:
    """Mirrors a sweep from a background thread while it runs; a context manager around the sweep.

    Args:
        directory: The sweep's folder.
        tracking: Where to mirror it; when not `enabled`, nothing happens.
        read: Reads its study from the mirror's thread, as `Study.shared` does; None for a reader of its own.
        say: Takes the one line that is said at the end when MLflow lacks part of the sweep.
        every: Seconds between looks at the study; more before the first, while workers start, and where there is
            nothing new, or nobody to tell.

    Raises:
        InputError: The tracking URI is none.
    """

    def __init__(
        self,
        directory: Path,
        tracking: Tracking,
        *,
        read: Callable[[], Reading] | None = None,
        say: Callable[[str], None] = log.warning,
        every: float = 2.0,
    ) -> None:
        self._copier = _Copier(directory, tracking, read) if tracking.enabled else None
        self._say, self._every = say, every
        self._patience = _UPLOAD_SECONDS if tracking.upload_weights else LAST_SECONDS
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="mlflow-mirror", daemon=True)

    def __enter__(self) -> Self:
        """Start to watch the study."""
        if self._copier is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is still missing, as `flush` does."""
        self.flush()

    @property
    def report(self) -> MirrorReport:
        """How far the mirror is now."""
        return self._copier.report if self._copier else MirrorReport()

    def flush(self, timeout: float | None = None) -> MirrorReport:
        """End the mirror once no trial runs any more: write the rest, but wait at most `timeout` seconds for it.

        By default half a minute, or a quarter of an hour where weights are uploaded to a registry, and up to five
        minutes where in each half something was written. What still runs in the study counts as killed. Says in one
        line when MLflow did not take everything. Never raises; a second call does nothing.
        """
        if self._copier is None or self._ending.is_set() or not self._thread.is_alive():
            return self.report
        self._ending.set()
        waited = self._wait(timeout)
        if self._thread.is_alive():
            self._copier.abandon(f"it took longer than {waited:g} seconds")
        if trouble := self.report.trouble:
            self._say(trouble)
        return self.report

    def _wait(self, timeout: float | None) -> float:
        """Wait for the last words, and again while they bring something; for how many seconds."""
        patience, waited = self._patience if timeout is None else timeout, 0.0
        longest = patience if timeout is not None else _LONGEST_SECONDS
        while True:
            before, waited = self.report.points, waited + patience
            self._thread.join(patience)
            if not self._thread.is_alive() or waited >= longest or self.report.points == before:
                return waited

    def _watch(self) -> None:
        assert self._copier is not None
        pause = _FIRST * self._every
        while not self._ending.wait(pause):
            pause = self._every if self._copier.attempt(driven=True) else min(2 * pause, 15 * self._every)
        self._copier.persist(driven=False)


@dataclass(frozen=True)
class _Brought:
    """What needs no second look while a mirror goes on: of 10,000 trials only few change between two looks."""

    trials: Mapping[str, TrialRecord] = field(default_factory=dict)
    """By key, those that had ended."""
    winner: Any = None
    """As the study noted it: another marks other runs."""
    files: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Stamps of the artifacts."""

    def beside(self, reading: Reading) -> _Brought:
        """What of it still holds."""
        return self if self.winner == reading.attributes.get("winner") else replace(self, trials={})


class _Copier:
    """Copies a study to MLflow again and again and remembers what is there; after a failure it looks afresh."""

    def __init__(
        self, directory: Path, tracking: Tracking, read: Callable[[], Reading] | None = None, options: str = ""
    ) -> None:
        self._directory, self._experiment, self._uri = directory.resolve(), tracking.experiment, resolve_uri(tracking)
        self._again = f"chronotune mirror {self._directory}{options}"
        prepare_environment()
        self._given, self._tracking = read, tracking
        self._read: Callable[[], Reading] | None = None
        self._runs: Runs | None = None
        self._brought = _Brought()
        self._points = self._results = 0
        self._version: str | None = None
        self._trouble: str | None = "nothing was written yet"
        self._abandoned = False

    @property
    def report(self) -> MirrorReport:
        """What was written so far, with a sentence for the user when that is not everything."""
        sentence = (
            f"MLflow at {masked(self._uri)} lacks part of this sweep ({self._trouble}). The sweep itself is whole: "
            f"once that is mended, `{self._again}` catches up, and `--to` takes another address"
        )
        done = masked(self._uri), self._points, self._results, self._version
        return MirrorReport(*done, sentence if self._trouble else None)

    def abandon(self, trouble: str) -> None:
        """Write nothing more: the driver is leaving."""
        self._abandoned, self._trouble = True, trouble

    def persist(self, driven: bool, attempts: int = 3) -> None:
        """Attempt until all is written, a few times: a server may be restarting, another mirror be in the way."""
        for left in reversed(range(attempts)):
            self.attempt(driven)
            if self._trouble is None or self._abandoned:
                return
            time.sleep(_RETRY_SECONDS if left else 0)

    def attempt(self, driven: bool) -> bool:
        """Write what is new, and say whether anything was. No exception leaves here."""
        before = self._points
        try:
            self._copy(driven)
        except Exception as error:  # whatever MLflow, the network or a file raises: the sweep goes on
            self._read, self._runs, self._brought = None, None, _Brought()
            self._settle(_reason(error).replace(self._uri, masked(self._uri)))
        else:
            self._settle(None)
        return self._points > before

    def _settle(self, trouble: str | None) -> None:
        if not self._abandoned:  # then the last word is spoken
            self._trouble = trouble

    def _copy(self, driven: bool) -> None:
        self._read = self._read or self._given or Reader(self._directory).read
        reading = self._read()
        if self._runs is None:
            self._runs = Runs(self._uri, self._experiment, sweep_id(reading))
            self._registry = Registry(self._runs, self._tracking)
        brought = self._brought.beside(reading)
        *children, parent = runs_of(reading, self._directory, driven, brought.trials)
        with quiet():
            self._runs.adopt(parent)
            for run in [*children, parent]:
                if self._abandoned:
                    return
                self._points += self._runs.bring(run)
            if brought.files != (files := stamps_of(self._directory)):
                self._runs.attach(SWEEP, artifacts_of(reading, self._directory))
            self._version = self._registry.publish(reading, self._directory)
        self._brought = _Brought(
            {key_of(one): one for one in _trials(reading) if one.ended}, reading.attributes.get("winner"), files
        )
        self._results = sum(len(trial.results) for trial in _trials(reading))


def _trials(reading: Reading) -> tuple[TrialRecord, ...]:
    return (*reading.trials, *reading.finalists)


def _reason(error: BaseException) -> str:
    """The first line of what began it all: MLflow wraps a refused connection four times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
