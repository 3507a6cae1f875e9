"""The study is the record: what was written is there after any end, and says which trial won."""

from __future__ import annotations

import math
from pathlib import Path
from unittest.mock import Mock

import optuna
import pytest

from chronotune.errors import InputError
from chronotune.lease import Lease
from chronotune.study import JOURNAL, Reader, Study, read, refuse_changes
from sweep_parts import ask, new_study, result


def test_a_finished_trial_is_told_its_best_score(tmp_path: Path) -> None:
    """The best score counts, not the last, and Optuna agrees on the winner."""
    study = new_study(tmp_path)
    for scores in ([0.9, 0.5, 0.7], [0.8, 0.6, 0.6]):
        number = ask(study)
        for windows, score in zip((3, 9, 27), scores, strict=True):
            study.record(number, result(windows, score))
        study.finish(number, full_budget=27)
    reading = read(tmp_path)
    assert [trial.state for trial in reading.trials] == ["complete", "complete"]
    assert reading.winner is not None
    assert reading.winner.number == 0
    assert reading.winner.best is not None
    assert (reading.winner.best.windows_seen, reading.winner.best.objective) == (9, 0.5)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL)))
    plain = optuna.load_study(study_name="small", storage=storage)
    assert (plain.best_trial.number, plain.best_value) == (0, 0.5)


def test_an_early_stopped_trial_is_pruned_and_never_wins(tmp_path: Path) -> None:
    """Told with its best score, but only trials of full budget can win."""
    study = new_study(tmp_path)
    stopped, whole = ask(study), ask(study)
    study.record(stopped, result(3, 0.1))
    study.record(stopped, result(9, 0.2))
    study.record(whole, result(27, 0.9))
    assert study.finish(stopped, full_budget=27).state == "pruned"
    assert study.finish(whole, full_budget=27).state == "complete"
    assert study.read().winner == study.trial(whole)
    assert study._frozen(stopped).value == 0.1


def test_a_failed_trial_keeps_its_reason_and_its_results(tmp_path: Path) -> None:
    """What it reported before it failed stays."""
    study = new_study(tmp_path)
    number = ask(study)
    study.record(number, result(3, 0.4))
    study.fail(number, "the loss was NaN")
    trial = read(tmp_path).trials[number]
    assert (trial.state, trial.reason, trial.windows_seen) == ("failed", "the loss was NaN", 3)


def test_a_failure_that_was_not_told_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver died between reason and end; the next one went on with the trial, to its end."""
    study = new_study(tmp_path)
    number = ask(study)
    monkeypatch.setattr(study._storage, "set_trial_state_values", Mock(side_effect=OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        study.fail(number, "its worker died")
    again = Study.reopen(tmp_path)
    assert (again.trial(number).state, again.trial(number).reason) == ("running", None)
    again.record(number, result(27, 0.4))
    assert again.finish(number, full_budget=27).reason is None
    failed = ask(again)
    assert again.fail(failed, "the loss was NaN").reason == "the loss was NaN"


def test_a_result_that_is_there_is_whole(tmp_path: Path) -> None:
    """A driver that was killed between the two lines of a result records it again; else its metrics were lost."""
    study, journal = new_study(tmp_path), tmp_path / JOURNAL
    number = ask(study)
    before = len(journal.read_bytes().splitlines())
    study.record(number, result(3, 0.4))
    lines = journal.read_bytes().splitlines(keepends=True)
    for count in range(before, len(lines)):
        journal.write_bytes(b"".join(lines[:count]))
        again = Study.reopen(tmp_path)
        assert again.trial(number).results == ()
        again.record(number, result(3, 0.4))
        assert again.trial(number).results == (result(3, 0.4),)


def test_a_trial_without_a_result_fails(tmp_path: Path) -> None:
    """Nothing can be told of it."""
    study = new_study(tmp_path)
    assert study.finish(ask(study), full_budget=27).state == "failed"


def test_a_result_is_recorded_once(tmp_path: Path) -> None:
    """A trial that goes on from a checkpoint reports that checkpoint's result again."""
    study = new_study(tmp_path)
    number = ask(study)
    study.record(number, result(3, 0.4))
    study.record(number, result(3, 0.3))
    assert [r.objective for r in study.trial(number).results] == [0.4]


@pytest.mark.parametrize("torn", [b'{"op_code":6,"worker', b"\0\0\0\0\n", b'{"op_code":6,"wor\0\0\n\0\0\n\0'])
def test_a_torn_last_line_is_cut_back(tmp_path: Path, torn: bytes) -> None:
    """A driver killed in the middle of a write, or a power failure, leaves what Optuna could never extend."""
    study = new_study(tmp_path)
    study.record(ask(study), result(3, 0.4))
    with (tmp_path / JOURNAL).open("ab") as journal:
        journal.write(torn)
    reopened = Study.reopen(tmp_path)
    reopened.record(0, result(9, 0.2))
    assert [r.objective for r in read(tmp_path).trials[0].results] == [0.4, 0.2]


def test_a_dead_driver_s_lock_is_cleared(tmp_path: Path) -> None:
    """Optuna would wait for it half a minute."""
    new_study(tmp_path)
    (tmp_path / f"{JOURNAL}.lock").symlink_to(tmp_path / JOURNAL)
    reopened = Study.reopen(tmp_path)
    assert not (tmp_path / f"{JOURNAL}.lock").is_symlink()
    assert reopened.trials == []


def test_a_reader_sees_what_is_written_later(tmp_path: Path) -> None:
    """One reader can follow a running sweep."""
    study = new_study(tmp_path)
    reader = Reader(tmp_path)
    assert reader.read().trials == ()
    number = ask(study)
    study.record(number, result(3, 0.4))
    study.note("ended", "now")
    reading = reader.read()
    assert reading.trials[number].windows_seen == 3
    assert reading.attributes["ended"] == "now"


def test_zero_shot_is_its_best_setting(tmp_path: Path) -> None:
    """By the recipe's objective on validation; one whose score is no number is never preferred."""
    study, tried = new_study(tmp_path), ((24, float("nan")), (48, 0.7), (96, 0.6))
    scores = [{"context_length": c, "covariates": "none", "metrics": {"sql": s}} for c, s in tried]
    study.note("zero_shot", scores)
    best = study.read().zero_shot
    assert best is not None
    assert best["context_length"] == 96


def test_folders_without_a_study_are_refused(tmp_path: Path) -> None:
    """Missing, never begun, and of another version."""
    with pytest.raises(InputError, match=r"holds study\.journal"):
        read(tmp_path)
    (tmp_path / JOURNAL).touch()
    with pytest.raises(InputError, match="never begun"):
        read(tmp_path)
    study = new_study(tmp_path)
    study.note("chronotune", "7.1")
    study.note("schema", 99)
    with pytest.raises(InputError, match=r"schema 1, but this one has 99\. There is no migration: use chronotune 7\.1"):
        read(tmp_path)


def test_a_folder_whose_driver_was_killed_before_its_study_says_what_to_do(tmp_path: Path) -> None:
    """`run` does not take it again. A recipe alone may be anybody's."""
    (tmp_path / "recipe.yaml").touch()
    with Lease(tmp_path), pytest.raises(InputError, match=r"was never begun\. Remove the folder and run"):
        Study.reopen(tmp_path)
    with pytest.raises(InputError, match=r"holds study\.journal"):
        Study.reopen(tmp_path)
    (tmp_path / "checkpoints").mkdir()  # of a study that somebody has taken away
    with Lease(tmp_path), pytest.raises(InputError, match=r"holds study\.journal"):
        Study.reopen(tmp_path)


def test_a_study_is_begun_as_a_whole(tmp_path: Path) -> None:
    """Cut off after any line of its beginning, it was never begun: a resume could not go on with a part."""
    whole = Study.create(tmp_path, "small", {"recipe": {}, "identity": {"data": "1"}, "trials": 4, "first": []})
    attributes, journal = whole.read().attributes, tmp_path / JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) > len(attributes)
    for cut in range(len(lines)):
        journal.write_text("".join(lines[:cut]))
        with pytest.raises(InputError, match="never begun"):
            Study.reopen(tmp_path)
    journal.write_text("".join(lines))
    assert Study.reopen(tmp_path).read().attributes == attributes


def test_every_change_of_identity_is_named() -> None:
    """Resuming on other data or another budget is refused."""
    refuse_changes({"data": "a", "budget": "b"}, {"data": "a", "budget": "b"})
    with pytest.raises(InputError, match="data was a, is x; budget was b, is y"):
        refuse_changes({"data": "a", "budget": "b"}, {"data": "x", "budget": "y"})


def test_a_score_that_is_infinite_cannot_win(tmp_path: Path) -> None:
    """The storage holds it, the leaderboard does not choose it."""
    study = new_study(tmp_path)
    for score in (math.inf, 0.5):
        number = ask(study)
        study.record(number, result(27, score))
        study.finish(number, full_budget=27)
    winner = study.read().winner
    assert winner is not None
    assert winner.number == 1
