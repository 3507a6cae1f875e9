"""What the table of faults calls identical, consistent or broken. Without Ray and training."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drivers import see_that_it_happened
from judge import FULL_BUDGET, Outcome, Story, outcome
from moments import RAISES
from place import NotAsPromisedError, Place, facts

from chronotune.study import Study, read
from sweep_parts import ask, new_study, result


def ended_sweep(folder: Path, score: float = 0.5, mlflow: tuple[str, ...] = ("FINISHED",) * 4) -> Place:
    """A sweep of three trials as one that was left alone: two complete, one stopped early."""
    (folder / "sweep").mkdir(parents=True)
    study = new_study(folder / "sweep")
    study.note("trials", 3)
    for end in (FULL_BUDGET, 16, FULL_BUDGET):
        number = ask(study)
        study.record(number, result(16, score + number))
        if end > 16:
            study.record(number, result(end, score + number - 0.1))
        study.finish(number, FULL_BUDGET)
    study.note("winner", {"number": 0, "score": score, "sha256": "abc"})
    for key in ("evaluation", "ended"):
        study.note(key, {"of": "the winner"})
    for table in (
        "runs (run_uuid, status, lifecycle_stage)",
        "tags (run_uuid, key, value)",
        "metrics (run_uuid, key, step, value)",
    ):
        in_mlflow(folder, f"create table {table}")
    for number, status in enumerate(mlflow):
        in_mlflow(folder, "insert into runs values (?, ?, 'active')", str(number), status)
    for trial in study.trials:
        own = str(trial.number)
        in_mlflow(folder, "insert into tags values (?, 'chronotune.run', ?)", own, own)
        for one in trial.results:
            in_mlflow(folder, "insert into metrics values (?, 'sql', ?, ?)", own, one.windows_seen, one.objective)
    return Place(folder)


def in_mlflow(folder: Path, statement: str, *values: Any) -> None:
    """Change the store."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        store.execute(statement, values)
        store.commit()


def judged(place: Place, whole: Place, failures: int = 0) -> Outcome:
    """The row of a fault that was to end identically."""
    return outcome("any", "any fault", Story("killed, resumed", (place,)), "identical", failures, whole.table())


def test_a_sweep_like_the_undisturbed_one_is_identical(tmp_path: Path) -> None:
    """However often it was killed: times do not count."""
    done = judged(ended_sweep(tmp_path / "one"), ended_sweep(tmp_path / "whole"))
    assert (done.verdict, done.survived, done.broken) == ("identical", True, "")
    assert (done.complete, done.pruned, done.failed, done.running, done.mlflow) == (2, 1, 0, 0, "4 FINISHED")


def test_another_score_is_not_identical(tmp_path: Path) -> None:
    """Whole, but not as promised."""
    done = judged(ended_sweep(tmp_path / "one", score=0.5000001), ended_sweep(tmp_path / "whole"))
    assert (done.verdict, done.survived) == ("consistent", False)


def _another_trial(study: Study) -> None:
    ask(study)


def _fewer_wanted(study: Study) -> None:
    study.note("trials", 2)


def _no_winner(study: Study) -> None:
    study.note("winner", None)


def _finalist_missing(study: Study) -> None:
    study.finalists()
    study.note("finalists", {"trials": [0], "seeds": [1]})


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_another_trial, "trial 3 is left running"),
        (_fewer_wanted, "2 trials were wanted"),
        (_no_winner, "the study has no winner"),
        (_finalist_missing, "finalists' trainings should be"),
    ],
)
def test_a_study_that_is_not_whole_is_broken(tmp_path: Path, harm: Callable[[Any], None], told: str) -> None:
    """And the row says what is wrong with it."""
    place = ended_sweep(tmp_path / "one")
    harm(Study.reopen(place.sweep))
    done = judged(place, ended_sweep(tmp_path / "whole"))
    assert (done.verdict, done.survived) == ("BROKEN", False)
    assert told in done.broken


@pytest.mark.parametrize("statuses", [("FINISHED",) * 3, ("FINISHED",) * 5, ("FINISHED",) * 3 + ("RUNNING",)])
def test_mlflow_has_each_run_once_and_ended(tmp_path: Path, statuses: tuple[str, ...]) -> None:
    """One missing, one twice, one left running."""
    done = judged(ended_sweep(tmp_path / "one", mlflow=statuses), ended_sweep(tmp_path / "whole"))
    assert (done.verdict, done.survived) == ("BROKEN", False)
    assert "MLflow should hold" in done.broken


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("delete from metrics where step = 16 and run_uuid = '1'", "MLflow lacks [('1', 'sql', 16, 1.5)]"),
        ("update metrics set value = 9 where step = 16 and run_uuid = '1'", "has too much [('1', 'sql', 16, 9"),
        ("insert into metrics values ('0', 'sql', 48, 0.4)", "has too much [('0', 'sql', 48, 0.4)]"),
    ],
)
def test_mlflow_has_each_value_once(tmp_path: Path, statement: str, told: str) -> None:
    """One missing, one wrong, one twice."""
    place = ended_sweep(tmp_path / "one")
    in_mlflow(place.folder, statement)
    done = judged(place, ended_sweep(tmp_path / "whole"))
    assert done.verdict == "BROKEN"
    assert told in done.broken


def test_what_had_ended_when_the_driver_died_is_kept(tmp_path: Path) -> None:
    """Drawn and trained again under its number it is another trial, however whole the sweep looks."""
    place = ended_sweep(tmp_path / "one")
    assert place.remains() == "nothing"
    assert judged(place, place).verdict == "identical"
    with (place.folder / "ended.txt").open("a") as noted:
        noted.write(facts(replace(read(place.sweep).trials[1], results=(result(16, 1.25),))) + "\n")
    done = judged(place, place)
    assert done.verdict == "BROKEN"
    assert "had ended, and is gone or another: (1, 'pruned'" in done.broken


@pytest.mark.parametrize(("marks", "reason"), [(1, "planted"), (2, "the disk is full")])
def test_a_fault_that_did_not_happen_is_none(tmp_path: Path, marks: int, reason: str) -> None:
    """The named call was never reached as often, or a trial failed for something else."""
    place = ended_sweep(tmp_path / "one")
    study = Study.reopen(place.sweep)
    study.fail(ask(study), reason)
    (place.folder / "printed.txt").touch()
    for number in range(marks):
        (place.folder / f"fault-{number}").touch()
    with pytest.raises(NotAsPromisedError, match="should happen 2 times" if marks == 1 else "'the disk is full'"):
        see_that_it_happened(place, replace(RAISES, times=2))


@pytest.mark.parametrize(
    "name", ["lease.json", "study.journal.lock", "checkpoints/0000/.48.partial", "checkpoints/.tune"]
)
def test_nothing_is_left_behind(tmp_path: Path, name: str) -> None:
    """Of what only a sweep leaves that was cut off."""
    place = ended_sweep(tmp_path / "one")
    (place.sweep / name).mkdir(parents=True)
    done = judged(place, ended_sweep(tmp_path / "whole"))
    assert done.verdict == "BROKEN"
    assert "left behind" in done.broken


def test_only_a_study_that_was_never_begun_is_begun_anew(tmp_path: Path) -> None:
    """A torn line is repaired by the next driver, as a whole one; what it could not read is told, not thrown away."""
    place = ended_sweep(tmp_path / "one")
    journal = place.sweep / "study.journal"
    whole = journal.read_text()
    journal.write_text(whole + '{"op_code":8,"worker')
    assert place.left() is not None
    assert journal.read_text() != whole  # the repair is left to it
    journal.write_text("no journal\n" + whole)
    with pytest.raises(NotAsPromisedError, match="line 1 is damaged"):
        place.left()
    journal.write_text('{"op_code":0,"work')
    assert place.left() is None
    journal.unlink()
    assert place.left() is None


def test_a_failure_that_was_not_planned_is_not_survived(tmp_path: Path) -> None:
    """Nor one that was planned and did not come."""
    place, whole = ended_sweep(tmp_path / "one"), ended_sweep(tmp_path / "whole")
    assert judged(place, whole, failures=1).verdict == "BROKEN"
