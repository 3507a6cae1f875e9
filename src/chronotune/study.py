"""The study contract: one durable Optuna study is the only record of a sweep, everything else is a reading of it.

A trial is one searched configuration. Each of its results is an intermediate value at `windows_seen` plus a user
attribute with all metrics; at its end it is told the best score that it reached. The finalists' repeats are trials of a
second study in the same storage, so that they enter neither the search nor its leaderboard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from chronotune.config.space import Hyperparameters
from chronotune.drawing import Drawing
from chronotune.errors import InputError
from chronotune.journal import Journal, together
from chronotune.proposal import Proposal
from chronotune.records import FINALISTS, Reading, Result, State, TrialRecord, by_score, winner
from chronotune.storage import (
    JOURNAL,
    address_of,
    begin,
    explained,
    is_sweep,
    look,
    reopen,
    second_name,
    steadily,
    unbegun,
)

__all__ = [
    "JOURNAL",
    "SCHEMA",
    "Reader",
    "Reading",
    "Result",
    "State",
    "Study",
    "TrialRecord",
    "by_score",
    "is_sweep",
    "read",
    "refuse_changes",
    "winner",
]

SCHEMA = 1
IDENTITY = "identity"
"""Attribute of a study: what it began with. It is there once the study has begun."""
_RESULT = "result:"

_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Study:
    """The one writer's view of a sweep's study. Open it only while holding the sweep's lease."""

    def __init__(self, storage: BaseStorage, study: optuna.Study) -> None:
        self._storage, self._study = storage, study
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._ended, self._drawing = dict[int, TrialRecord](), Drawing()

    @classmethod
    def create(cls, directory: Path, name: str, attributes: Mapping[str, Any], url: str | None = None) -> Study:
        """Start a new study in `directory`, or in the database at `url`.

        `attributes` (JSON values) are its identity and recipe. The identity is written last: a study that has it is
        whole, and one without it was never begun.
        """
        storage = begin(directory, url, name)
        with together(storage):
            study = optuna.create_study(study_name=name, storage=storage, direction=StudyDirection.MINIMIZE)
            for key, value in sorted({"schema": SCHEMA, **attributes}.items(), key=lambda item: item[0] == IDENTITY):
                study.set_user_attr(key, value)
        return cls(storage, study)

    @classmethod
    def reopen(cls, directory: Path) -> Study:
        """Open an existing study for writing, after cutting a torn last line and clearing a dead process's lock.

        Raises:
            InputError: There is no study, or it follows another version of the contract.
        """
        return cls(*_load(directory, reopen(directory)))

    def finalists(self) -> Study:
        """The study of the finalists' repeats, which is begun when there is none yet."""
        second = optuna.create_study(
            study_name=second_name(self._study.study_name),
            storage=self._storage,
            direction=StudyDirection.MINIMIZE,
            load_if_exists=True,
        )
        return Study(self._storage, second)

    def repeat(self, number: int, seed: int, into: Study) -> TrialRecord:
        """Begin, in the study `into`, the training of trial `number` with another seed: whole or not at all."""
        searched = self._frozen(number)
        point = searched.user_attrs["hyperparameters"]
        attributes = {"hyperparameters": point, "of": number, "seed": seed}
        return into._begin(searched.params, searched.distributions, attributes)

    def ask(self, by: Proposal) -> TrialRecord:
        """Begin the next trial: whole or not at all."""
        drawn = self._drawing.draw(by, self._study.get_trials(deepcopy=False))
        point = drawn.hyperparameters.model_dump(exclude_none=True)
        return self._begin(drawn.params, drawn.distributions, {"hyperparameters": point})

    @steadily
    def prepare(self, by: Proposal) -> None:
        """Begin to draw what `ask` will be asked for next, beside whatever comes until then, if that may be."""
        if by.ahead:
            self._drawing.begin(by, self._study.get_trials(deepcopy=False))

    def _begin(
        self, params: dict[str, Any], distributions: dict[str, BaseDistribution], attributes: dict[str, Any]
    ) -> TrialRecord:
        begun = create_trial(
            state=TrialState.RUNNING, params=params, distributions=distributions, user_attrs=attributes
        )
        self._study.add_trial(begun)
        return self.trials[-1]

    @steadily
    def record(self, number: int, result: Result) -> None:
        """Add a result to a running trial; one that is already there is left as it is."""
        known = self._frozen(number)
        if result.windows_seen in known.intermediate_values:
            return
        values = {"metrics": dict(result.metrics), "attributes": dict(result.attributes)}
        # the attribute first: a result whose value is present is whole
        self._storage.set_trial_user_attr(self._id(number), f"{_RESULT}{result.windows_seen}", values)
        self._storage.set_trial_intermediate_value(self._id(number), result.windows_seen, result.objective)

    @steadily
    def finish(self, number: int, full_budget: int) -> TrialRecord:
        """Tell a trial's best score: COMPLETE when it reached `full_budget` windows, else PRUNED."""
        record = self.trial(number)
        if record.state != "running":  # told already, in a database whose answer was lost
            return record
        if record.best is None:
            return self.fail(number, "it ended without a result")
        if record.windows_seen >= full_budget:
            self._study.tell(number, record.best.objective, state=TrialState.COMPLETE)
        else:
            # study.tell takes no value for PRUNED, it takes the last one; the storage takes the best
            self._storage.set_trial_state_values(self._id(number), TrialState.PRUNED, [record.best.objective])
        return self.trial(number)

    @steadily
    def fail(self, number: int, reason: str) -> TrialRecord:
        """Tell that a trial failed, and why."""
        if (record := self.trial(number)).state != "running":
            return record
        self._storage.set_trial_user_attr(self._id(number), "reason", reason)
        self._storage.set_trial_state_values(self._id(number), TrialState.FAIL)
        return self.trial(number)

    def together(self, synced: bool = True) -> AbstractContextManager[None]:
        """Wait for the disk only at the end of the block; not `synced`: only with what is written after it."""
        return together(self._storage, synced)

    @steadily
    def note(self, key: str, value: object) -> None:
        """Set an attribute (a JSON value) of the whole study."""
        self._study.set_user_attr(key, value)

    @steadily
    def attribute(self, key: str) -> Any:
        """An attribute of the whole study, or None."""
        return self._study.user_attrs.get(key)

    @steadily
    def trial(self, number: int) -> TrialRecord:
        """One trial."""
        return _record(self._frozen(number))

    @property
    @steadily
    def trials(self) -> list[TrialRecord]:
        """All trials, by number."""
        return _records(self._study.get_trials(deepcopy=False), self._ended)

    @steadily
    def read(self) -> Reading:
        """The study as it is now."""
        return _reading(self._storage, self._study, self._ended)

    @property
    def shared(self) -> Callable[[], Reading] | None:
        """`read`, for another thread; None for a database: while it is away its driver waits, and no reader does."""
        return self.read if isinstance(self._storage, Journal) else None

    def _frozen(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._id(number))

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)


class Reader:
    """A read-only view of a sweep's study, with its own storage, that may be read while the sweep runs."""

    def __init__(self, directory: Path) -> None:
        self._storage, self._study = _load(directory, look(directory))
        self._ended = dict[int, TrialRecord]()
        self._address = (address_of(directory) or {}).get("storage")

    @property
    def as_optuna(self) -> optuna.Study:
        """The same for what reads Optuna's studies: its plots."""
        return self._study

    def read(self) -> Reading:
        """The study as it is now."""
        with explained(self._address):
            return _reading(self._storage, self._study, self._ended)


def read(directory: Path) -> Reading:
    """The study of a running, dead or finished sweep, once.

    Raises:
        InputError: `directory` holds no sweep, or one of another version of the contract.
    """
    return Reader(directory).read()


def _load(directory: Path, storage: BaseStorage) -> tuple[BaseStorage, optuna.Study]:
    if (name := _name(directory, storage)) is None:
        raise unbegun(directory)
    study = optuna.load_study(study_name=name, storage=storage)
    if (schema := study.user_attrs.get("schema")) != SCHEMA:
        raise InputError(
            f"{directory}: this version reads studies of schema {SCHEMA}, but this one has {schema}. There is no "
            f"migration: use chronotune {study.user_attrs.get('chronotune', 'of the version that wrote it')}"
        )
    return storage, study


def _name(directory: Path, storage: BaseStorage) -> str | None:
    """The name of a sweep's searched study, if it was begun; in a journal, which has no other, whatever it is."""
    address = address_of(directory)
    for study in storage.get_all_studies():
        own = study.study_name == address["name"] if address else not study.study_name.endswith(second_name(""))
        if own and IDENTITY in study.user_attrs:
            return study.study_name
    return None


def _reading(storage: BaseStorage, study: optuna.Study, ended: dict[int, TrialRecord]) -> Reading:
    attributes, finalists = study.user_attrs, list[FrozenTrial]()
    if FINALISTS in attributes:
        second = storage.get_study_id_from_name(second_name(study.study_name))
        finalists = storage.get_all_trials(second, deepcopy=False)
    trials = _records(study.get_trials(deepcopy=False), ended)
    return Reading(study.study_name, attributes, tuple(trials), tuple(map(_record, finalists)))


def _records(trials: Iterable[FrozenTrial], ended: dict[int, TrialRecord]) -> list[TrialRecord]:
    """Trials of one study; `ended` remembers those that change no more, so that each is made into a record once."""
    found = []
    for frozen in trials:
        if (record := ended.get(frozen.number)) is None:
            record = _record(frozen)
            if frozen.state.is_finished():
                ended[frozen.number] = record
        found.append(record)
    return found


def _record(frozen: FrozenTrial) -> TrialRecord:
    attributes = frozen.user_attrs
    point = attributes.get("hyperparameters")
    return TrialRecord(
        number=frozen.number,
        state=_STATES[frozen.state],
        hyperparameters=Hyperparameters(**point) if point else None,
        results=tuple(
            Result(windows, objective, **attributes.get(f"{_RESULT}{windows}", {"metrics": {}}))
            for windows, objective in sorted(frozen.intermediate_values.items())
        ),
        # written before the end: of one whose driver died in between, and that has gone on since, it says nothing
        reason=attributes.get("reason") if frozen.state is TrialState.FAIL else None,
        started=_aware(frozen.datetime_start),
        ended=_aware(frozen.datetime_complete),
        of=attributes.get("of"),
        seed=attributes.get("seed"),
    )


def _aware(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment else None


def refuse_changes(stored: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Compare a study's identity with what a resume, or another evaluation, would use.

    Raises:
        InputError: They differ; every difference is named.
    """
    differing = [
        f"{key} was {(stored or {}).get(key)}, is {value}"
        for key, value in now.items()
        if (stored or {}).get(key) != value
    ]
    if differing:
        raise InputError(
            f"a sweep goes on, and is evaluated, only with what it began with, but {'; '.join(differing)}. "
            f"Restore that, or run a new sweep"
        )
