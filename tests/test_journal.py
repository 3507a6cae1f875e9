"""The file of a study: what belongs together is waited for once, and Optuna reads it as its own."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from chronotune import journal
from chronotune.errors import StorageError
from chronotune.journal import Journal, together
from chronotune.records import BUDGET, OBJECTIVE
from chronotune.search import StudySearcher, scheduler
from chronotune.study import JOURNAL, Reader, Study
from chronotune.tuner import _Recorder
from search_parts import FakeTune
from sweep_parts import ask, new_study, result, small_recipe


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes the journal had at each wait for the disk."""
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: sizes.append(os.fstat(handle).st_size))
    return sizes


def test_each_write_waits_unless_it_is_with_others(tmp_path: Path, waits: list[int]) -> None:
    """A wait at the end of a block covers all of it; one that is not synced leaves it to the next write."""
    study, file = new_study(tmp_path), tmp_path / JOURNAL
    number = ask(study)
    waits.clear()
    study.note("one", 1)
    assert waits == [file.stat().st_size]
    with study.together():
        study.record(number, result(3, 0.5))
        study.note("two", 2)
        assert len(waits) == 1
    assert waits[1:] == [file.stat().st_size]
    with study.together(synced=False):
        study.record(number, result(9, 0.4))
    assert len(waits) == 2
    study.note("three", 3)
    assert waits[2:] == [file.stat().st_size]


def test_what_is_written_is_there_before_the_disk_is_waited_for(tmp_path: Path) -> None:
    """So a kill inside a block loses nothing, and readers see it at once."""
    study = new_study(tmp_path)
    number, reader = ask(study), Reader(tmp_path)
    with study.together(synced=False):
        study.record(number, result(3, 0.5))
        assert reader.read().trials[number].windows_seen == 3


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full takes a part of it; what is written when there is space again must not be glued to that."""
    study, file = new_study(tmp_path), tmp_path / JOURNAL
    before = file.read_bytes()

    def full(opened: Any, content: bytes) -> None:
        opened.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_write", full)
        with pytest.raises(OSError, match="No space left"):
            study.note("one", 1)
    assert file.read_bytes() == before
    study.note("two", 2)
    assert {"two": 2}.items() <= Reader(tmp_path).read().attributes.items()


def test_a_line_is_written_whole(tmp_path: Path) -> None:
    """Also where the system takes it in parts."""

    class Slow(io.RawIOBase):
        taken = b""

        def write(self, content: Any) -> int:
            self.taken += bytes(content[:3])
            return len(content[:3])

    journal._write(slow := Slow(), b"a whole line\n")
    assert slow.taken == b"a whole line\n"


def test_an_error_inside_a_block_ends_it(tmp_path: Path, waits: list[int]) -> None:
    """What was written before it is waited for, and so is every later write."""
    study = new_study(tmp_path)

    def breaks() -> None:
        with study.together():
            study.note("one", 1)
            raise ZeroDivisionError

    waits.clear()
    with pytest.raises(ZeroDivisionError):
        breaks()
    assert len(waits) == 1
    study.note("two", 2)
    assert len(waits) == 2


def test_optuna_reads_and_writes_the_same_file(tmp_path: Path) -> None:
    """Line by line as its own backend writes."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    stored: list[optuna.storages.BaseStorage] = [
        Journal(ours),
        optuna.storages.JournalStorage(JournalFileBackend(str(theirs))),
    ]
    for storage in stored:
        study = optuna.create_study(study_name="x", storage=storage)
        with together(storage):
            study.set_user_attr("umlaut", "ä\n")
            study.enqueue_trial({"a": 1.5})
        study.optimize(lambda trial: trial.suggest_float("a", 0, 2), n_trials=1)
    assert [line.count(b":") for line in ours.read_bytes().splitlines()] == [
        line.count(b":") for line in theirs.read_bytes().splitlines()
    ]
    optuna.load_study(study_name="x", storage=stored[1]).set_user_attr("more", 1)
    again = optuna.load_study(study_name="x", storage=optuna.storages.JournalStorage(JournalFileBackend(str(ours))))
    assert (again.best_value, again.user_attrs) == (1.5, {"umlaut": "ä\n"})


def test_a_relative_path_waits_for_no_dead_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock leads to the file: Optuna breaks one by that file's age, and waits for ever where it leads nowhere."""
    monkeypatch.chdir(tmp_path)
    Path("sweep").mkdir()
    dead, alive = (Journal(Path("sweep") / JOURNAL)._file._mutex for _ in range(2))
    dead.acquire()  # and is killed
    assert (Path("sweep") / f"{JOURNAL}.lock").resolve() == tmp_path / "sweep" / JOURNAL
    monkeypatch.setattr(alive, "grace_period", 0.01)
    assert alive.acquire()


def test_reading_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is decoded twice, one that is being written waits, and whoever asks for earlier ones gets them."""
    file, decoded = tmp_path / "lines", list[str]()
    backend, decode = journal._File(str(file)), journal._DECODER.decode

    def noted(line: str) -> Any:
        decoded.append(line)
        return decode(line)

    monkeypatch.setattr(journal._DECODER, "decode", noted)
    file.write_bytes(b'{"n":0}\n{"n":1}\n{"n"')
    assert [log["n"] for log in backend.read_logs(0)] == [0, 1]
    assert list(backend.read_logs(2)) == []
    with file.open("ab") as more:
        more.write(b':2}\n{"n":3}\n')
    assert [log["n"] for log in backend.read_logs(2)] == [2, 3]
    assert len(decoded) == 4
    assert [log["n"] for log in backend.read_logs(1)] == [1, 2, 3]
    assert [log["n"] for log in backend.read_logs(4)] == []


def test_a_line_that_refuses_to_be_applied_is_not_read_again(tmp_path: Path) -> None:
    """Optuna counts it as read and raises; the next reading begins behind it."""
    file = tmp_path / "lines"
    file.write_bytes(b'{"n":0}\n{"n":1}\n{"n":2}\n')
    backend = journal._File(str(file))
    assert next(backend.read_logs(0)) == {"n": 0}
    assert [log["n"] for log in backend.read_logs(1)] == [1, 2]


def test_a_line_that_is_none_ends_the_reading_only_while_it_is_the_last(tmp_path: Path) -> None:
    """As with Optuna's own backend; ours says where it is, and what to do."""
    file = tmp_path / "lines"
    damaged = (StorageError, "lines: .*line 2 is damaged.* cut it off before that line")
    for backend, (error, told) in (
        (journal._File(str(file)), damaged),
        (JournalFileBackend(str(file)), (json.JSONDecodeError, None)),
    ):
        file.write_bytes(b'{"n":0}\n\0\0\0\n')
        assert list(backend.read_logs(0)) == [{"n": 0}]
        with file.open("ab") as more:
            more.write(b'{"n":2}\n')
        with pytest.raises(error, match=told):
            list(backend.read_logs(1))


def test_names_in_results_are_kept_once(tmp_path: Path) -> None:
    """Those of metrics and attributes are the same in all results of thousands of trials."""
    study = new_study(tmp_path)
    for _ in range(2):
        study.record(ask(study), result(3, 0.5))
    for reading in (study.read(), Reader(tmp_path).read()):
        first, second = ([*trial.results[0].metrics, *trial.results[0].attributes] for trial in reading.trials)
        assert first
        assert all(one is other for one, other in zip(first, second, strict=True))


def test_another_storage_has_nothing_to_wait_for() -> None:
    """The block does nothing there."""
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage)
    with together(storage):
        study.set_user_attr("one", 1)
    assert study.user_attrs == {"one": 1}


def test_a_trial_is_asked_for_and_told_with_one_wait_each(tmp_path: Path, waits: list[int]) -> None:
    """A new trial is one line of the journal, a result two."""
    recipe = small_recipe()
    tune = FakeTune(Study.create(tmp_path, "small", {"zero_shot": [], "trials": 2}), recipe)
    waits.clear()
    trial_id, proposal = tune.suggest()
    assert len(waits) == 1
    tune.study.record(proposal["number"], result(3, 0.5))
    waits.clear()
    tune.searcher.on_trial_complete(trial_id, {BUDGET: 3})
    tune.searcher.suggest("next")
    tune.searcher.on_trial_complete("next", {"failed": "no memory"})
    assert len(waits) == 3


def test_a_last_result_is_waited_for_with_its_end(tmp_path: Path, waits: list[int]) -> None:
    """One wait for each result, also when it ends its trial; seconds spent wait for the next one."""
    study, recipe, nothing = new_study(tmp_path), small_recipe(), Mock()
    study.note("zero_shot", [])
    searcher = StudySearcher(study, recipe, scheduler(recipe), wanted=4, slots=lambda: 1)
    recorder = _Recorder(study, searcher, nothing, lambda: None, lambda: None, None)
    trial: Any = SimpleNamespace(config=searcher.suggest("t"))
    for windows, done in ((3, False), (27, True)):
        waits.clear()
        told = {"number": 0, BUDGET: windows, OBJECTIVE: 0.5, "metrics": {}, "attributes": {}, "done": done}
        recorder.on_trial_result(0, [], trial, told)
        if done:
            assert waits == []
            searcher.on_trial_complete("t", told)
            recorder.on_trial_complete(0, [], trial)
        assert len(waits) == 1
    assert study.trials[0].state == "complete"


def test_ended_trials_are_read_once(tmp_path: Path) -> None:
    """A trial that has ended changes no more; one that runs is read afresh, and no reading is shared with others."""
    study = new_study(tmp_path)
    ended, running = ask(study), ask(study)
    study.record(ended, result(27, 0.5))
    before = study.trials
    study.finish(ended, full_budget=27)
    study.record(running, result(3, 0.6))
    first, second = study.trials, study.read().trials
    assert [trial.state for trial in before] == ["running", "running"]
    assert [trial.state for trial in first] == ["complete", "running"]
    assert first[ended] is second[ended]
    assert first[running] is not second[running]
    assert first[running].windows_seen == 3
    assert first == list(Reader(tmp_path).read().trials)
