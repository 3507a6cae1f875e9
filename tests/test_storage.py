"""A study in a database: all that holds for the journal holds there, and a server may go away for a while.

SQLite always; PostgreSQL where its server is installed (`apt install postgresql`), started here for the tests alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy.exc import SQLAlchemyError
from typer.testing import CliRunner

from chronotune import storage
from chronotune.cli import app
from chronotune.config.recipe import Recipe
from chronotune.errors import ChronotuneError, InputError
from chronotune.proposal import Proposal
from chronotune.results import leaderboard, sweeps
from chronotune.study import JOURNAL, Reader, Study, is_sweep, read
from postgres_parts import Server, server_or_reason
from search_parts import FakeTune, table
from sweep_parts import any_point, ask, new_study, result, small_recipe


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL server of our own."""
    found = server_or_reason()
    if isinstance(found, str):
        pytest.skip(found)
    with found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'studies.db'}"
    started: Server = request.getfixturevalue("server")
    return started.new_database()


def in_database(directory: Path, url: str, recipe: Recipe | None = None) -> Study:
    """An empty study in a database, as a sweep begins it."""
    directory.mkdir(exist_ok=True)
    return new_study(directory, recipe, url)


def test_a_resumed_sweep_is_the_unbroken_one_of_the_journal(url: str, tmp_path: Path) -> None:
    """Cut off in the middle and before an end was told, it proposes and decides what the journal's would have."""
    recipe = small_recipe(budget={"trials": 6, "windows": 27}, storage=url)
    whole = new_study(tmp_path, recipe)
    FakeTune(whole, recipe).run()
    folder = tmp_path / "small"
    FakeTune(in_database(folder, url, recipe), recipe).run(until=5, untold=True)
    FakeTune(Study.reopen(folder), recipe).run()
    assert table(Study.reopen(folder)) == table(whole)
    assert leaderboard(folder).drop("seconds").equals(leaderboard(tmp_path).drop("seconds"))
    assert not (folder / JOURNAL).exists()


def test_a_reader_follows_and_lists(url: str, tmp_path: Path) -> None:
    """`ls` and a mirror's reader see what is written later, the finalists and infinite scores too, as Optuna does."""
    study = in_database(tmp_path / "small", url)
    reader = Reader(tmp_path / "small")
    assert study.shared is None  # the driver's connection waits for a server that is away
    assert reader.read().trials == ()
    for score in (float("inf"), 0.5):
        number = ask(study)
        study.record(number, result(27, score))
        study.finish(number, full_budget=27)
    second = study.finalists()
    study.note("finalists", {"trials": [1], "seeds": [1]})
    second.record(study.repeat(1, 1, into=second).number, result(3, 0.4))
    stopped = ask(study)
    study.record(stopped, result(3, 0.1))
    assert study.finish(stopped, full_budget=27).state == "pruned"
    reading = reader.read()
    assert reading.winner is not None
    assert reading.winner.number == 1
    assert [repeat.windows_seen for repeat in reading.finalists] == [3]
    [about] = sweeps(tmp_path)
    assert (about["state"], about["trials"], about["score"]) == ("interrupted", 3, 0.5)
    plain = optuna.load_study(study_name="small", storage=url)
    assert (plain.best_trial.number, plain.best_value) == (1, 0.5)


def test_two_sweeps_share_a_database(url: str, tmp_path: Path) -> None:
    """Each reads its own, whatever its folder is called later; a name that is taken is refused before it begins."""
    ask(in_database(tmp_path / "small", url))
    storage.refuse_taken(url, "other")
    with pytest.raises(InputError, match=r"holds small\. .*: optuna delete-study --storage .* --study-name small$"):
        storage.refuse_taken(url, "small")
    Study.create(tmp_path, "other", {"recipe": {}, "identity": {}, "trials": 1}, url)
    (tmp_path / "small").rename(tmp_path / "renamed")
    assert (len(read(tmp_path).trials), len(read(tmp_path / "renamed").trials)) == (0, 1)


def test_an_sqlite_file_needs_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told before anything is begun, so nothing is there to be resumed."""
    with pytest.raises(InputError, match=r"needs a folder, but .*none is none. Make it: mkdir -p .*none") as told:
        storage.refuse_taken(f"sqlite:///{tmp_path}/none/studies.db", "small")
    assert "resume" not in str(told.value)
    monkeypatch.setattr("chronotune.storage.os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(InputError, match="must be writable, but"):
        storage.refuse_taken(f"sqlite:///{tmp_path}/studies.db", "small")
    monkeypatch.undo()
    (tmp_path / "studies.db").write_text("no database at all, but text")
    with pytest.raises(ChronotuneError, match="Nothing was begun") as told_too:
        storage.refuse_taken(f"sqlite:///{tmp_path}/studies.db", "small")
    assert "resume" not in str(told_too.value)


def test_rm_tells_what_stays(url: str, tmp_path: Path) -> None:
    """The folder goes; the study in the database does not."""
    study = in_database(tmp_path / "small", url)
    ask(study)
    study.finalists()
    done = CliRunner().invoke(app, ["rm", str(tmp_path / "small"), "--yes"])
    assert not is_sweep(tmp_path / "small")
    assert "study small in " in done.output
    assert "stays; remove it with: optuna delete-study --storage" in done.output
    assert len(optuna.load_study(study_name="small", storage=url).trials) == 1


def test_what_is_told_removes_what_stays(tmp_path: Path) -> None:
    """The finalists' study too, which a new sweep of this name would take for its own; as a shell runs it."""
    url, folder = f"sqlite:///{tmp_path / 'studies.db'}", tmp_path / "small"
    in_database(folder, url).finalists()
    told = storage.left_behind(folder)
    assert told is not None
    script = told.partition("remove it with: ")[2].replace(str(tmp_path), "${FOLDER}")
    first, second = script.split("; ")
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "FOLDER": str(tmp_path)}
    subprocess.run(first, shell=True, check=True, env=path, capture_output=True)
    with pytest.raises(InputError, match=r"holds small/finalists\. ") as refusal:
        storage.refuse_taken(url, "small")
    assert str(refusal.value).endswith(second.replace("${FOLDER}", str(tmp_path)))
    subprocess.run(second, shell=True, check=True, env=path, capture_output=True)
    storage.refuse_taken(url, "small")
    assert storage.left_behind(folder) is None


def test_a_lost_file_is_told_and_not_made_anew(tmp_path: Path) -> None:
    """An empty database in its place would look like a sweep that was never begun."""
    in_database(tmp_path / "small", f"sqlite:///{tmp_path / 'studies.db'}")
    (tmp_path / "studies.db").rename(tmp_path / "elsewhere.db")
    for look in (read, Study.reopen):
        with pytest.raises(InputError, match=r"studies\.db, but there is no such file"):
            look(tmp_path / "small")
    assert not (tmp_path / "studies.db").exists()


def test_a_driver_outlives_a_restart_of_its_server(server: Server, tmp_path: Path) -> None:
    """Killed with a connection open, away for two seconds: nothing is lost, nothing is there twice."""
    study = in_database(tmp_path / "small", server.new_database())
    number = ask(study)
    study.record(number, result(3, 0.9))
    server.kill()
    threading.Timer(2, server.start).start()
    study.record(number, result(9, 0.8))
    study.record(number, result(27, 0.7))
    assert study.finish(number, 27).state == "complete"
    assert [r.windows_seen for r in read(tmp_path / "small").trials[0].results] == [3, 9, 27]


def test_a_server_that_stays_away_ends_the_sweep(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sentence that says what to do; readers do not wait at all; then all goes on."""
    study = in_database(tmp_path / "small", server.new_database())
    number = ask(study)
    monkeypatch.setattr(storage, "PATIENCE_SECONDS", 1.5)
    server.kill()
    try:
        with pytest.raises(ChronotuneError, match=r"must answer, but did not.*resume DIR"), storage.explained("x"):
            study.record(number, result(3, 0.9))
        with pytest.raises(ChronotuneError, match="must answer, but did not"):
            read(tmp_path / "small")
        assert sweeps(tmp_path)[0]["state"] == "unreadable"
    finally:
        server.start()
    again = Study.reopen(tmp_path / "small")
    again.record(number, result(3, 0.9))
    assert [trial.windows_seen for trial in again.trials] == [3]


def test_an_end_is_told_once(url: str, tmp_path: Path) -> None:
    """A driver whose database broke off before it answered tells the same end again."""
    study = in_database(tmp_path / "small", url)
    number = ask(study)
    study.record(number, result(27, 0.9))
    first = study.finish(number, 27)
    assert study.finish(number, 27) == first
    assert study.fail(number, "too late").state == "complete"


def test_a_broken_connection_is_tried_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a write; another error is not."""
    study = in_database(tmp_path / "small", f"sqlite:///{tmp_path / 'studies.db'}")
    number, calls = ask(study), list[int]()
    write = study._storage.set_trial_intermediate_value

    def breaks(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise optuna.exceptions.StorageInternalError from SQLAlchemyError("gone")
        write(*arguments)

    monkeypatch.setattr(study._storage, "set_trial_intermediate_value", breaks)
    study.record(number, result(3, 0.9))
    assert (len(calls), study.trial(number).windows_seen) == (2, 3)
    with pytest.raises(KeyError):
        study.trial(7)


def test_a_trial_is_written_whole(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the journal: nobody sees one without its point, and no parameter is written by itself."""
    study = in_database(tmp_path / "small", url)

    def never(*_: object) -> None:
        raise AssertionError("written piece by piece")

    for write in ("set_trial_param", "set_trial_user_attr", "set_trial_system_attr"):
        monkeypatch.setattr(study._storage, write, never)
    asked = study.ask(Proposal(optuna.samplers.RandomSampler(seed=5), any_point, {"learning_rate": 2e-3}))
    assert asked == Study.reopen(tmp_path / "small").trial(0)
    assert asked.hyperparameters is not None
    assert (asked.state, asked.hyperparameters.learning_rate) == ("running", 2e-3)


def test_a_password_is_written_nowhere(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes from the environment, odd characters and all; neither files nor errors hold it."""
    monkeypatch.setenv("STUDY_PASSWORD", "hunter2@/{x}")
    url = server.new_database().replace("tester@", "tester:${STUDY_PASSWORD}@")
    recipe = small_recipe(budget={"trials": 1, "windows": 27}, storage=url)
    FakeTune(in_database(tmp_path / "small", url, recipe), recipe).run()
    assert json.loads((tmp_path / "small" / "study.json").read_text())["storage"] == url
    assert "hunter2" not in repr(read(tmp_path / "small"))
    for file in (tmp_path / "small").rglob("*"):
        assert b"hunter2" not in file.read_bytes()
    server.kill()
    try:
        with pytest.raises(ChronotuneError, match="must answer, but did not") as refusal:
            read(tmp_path / "small")
    finally:
        server.start()
    assert "hunter2" not in str(refusal.value)
    monkeypatch.delenv("STUDY_PASSWORD")
    with pytest.raises(InputError, match="STUDY_PASSWORD, which is not set"):
        read(tmp_path / "small")


def test_a_sweep_in_postgresql_is_extended_and_mirrored(server: Server, tmp_path: Path) -> None:
    """By its commands: `resume --trials` adds a trial to a finished sweep, `mirror` writes all of it once."""
    from mlflow.tracking import MlflowClient

    settings = (f"storage={server.new_database()}", "budget.trials=2", "cluster.max_concurrent=1")
    _chronotune("run", "smoke", "--dir", "sweep", *[part for one in settings for part in ("--set", one)], cwd=tmp_path)
    before = read(tmp_path / "sweep")
    _chronotune("resume", "sweep", "--trials", "+1", cwd=tmp_path)
    after = read(tmp_path / "sweep")
    assert not (tmp_path / "sweep" / JOURNAL).exists()
    assert (after.attributes["trials"], after.trials[:2]) == (3, before.trials)
    assert [trial.state in ("complete", "pruned") for trial in after.trials] == [True] * 3
    assert after.attributes["ended"] > before.attributes["ended"]
    mirror = ("mirror", "sweep", "--to", f"sqlite:///{tmp_path / 'mlflow.db'}")
    written = [int(_chronotune(*mirror, cwd=tmp_path).split()[0]) for _ in range(2)]
    assert written[0] > sum(len(trial.results) for trial in after.trials)
    assert written[1] == 0
    client = MlflowClient(tracking_uri=mirror[-1])
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = {run.info.run_name: run.info.status for run in client.search_runs(experiments)}
    assert runs == dict.fromkeys(("sweep", "trial 0000", "trial 0001", "trial 0002"), "FINISHED")


def _chronotune(*arguments: str, cwd: Path) -> str:
    """What a command prints, as a process of its own."""
    command = [sys.executable, "-m", "chronotune", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
