"""Readings of a sweep: leaderboard, curves, listings, and what may be removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from chronotune.cli import app
from chronotune.errors import InputError, StorageError
from chronotune.lease import Lease
from chronotune.results import as_dict, curves, leaderboard, log_of, remove, size_of, sweeps
from chronotune.study import JOURNAL, Study, read
from sweep_parts import ask, new_study, result


def some_sweep(directory: Path) -> Study:
    """Zero-shot at 0.8; a complete trial, a stopped one, a failed one, a running one."""
    directory.mkdir(parents=True, exist_ok=True)
    study = new_study(directory)
    setting = {"context_length": 96, "covariates": "known", "metrics": {"sql": 0.8}}
    study.note("zero_shot", [setting, {**setting, "context_length": 48, "metrics": {"sql": 0.9}}])
    for scores in ([0.7, 0.6], [0.75], [0.5], []):
        number = ask(study)
        for windows, score in zip((3, 27), scores, strict=False):
            study.record(number, result(windows, score))
    study.finish(0, 27)
    study.finish(1, 27)
    study.fail(2, "the loss was NaN")
    return study


def test_the_leaderboard_begins_with_zero_shot(tmp_path: Path) -> None:
    """Then the trials by their best score, those without one last; gains are relative to zero-shot."""
    some_sweep(tmp_path)
    with Lease(tmp_path):
        board = leaderboard(tmp_path)
    assert board["state"].to_list() == ["zero-shot", "failed", "complete", "pruned", "running"]
    assert leaderboard(tmp_path)["state"].to_list()[-1] == "interrupted"
    assert board["score"].to_list() == [0.8, 0.5, 0.6, 0.75, None]
    assert board["gain"].to_list()[:3] == [0.0, pytest.approx(0.375), pytest.approx(0.25)]
    assert board["context_length"][0] == 96
    assert board.filter(pl.col("trial") == 2)["reason"].item() == "the loss was NaN"


def test_the_curves_hold_every_result(tmp_path: Path) -> None:
    """One row a rung of a trial."""
    study = some_sweep(tmp_path)
    frame = curves(study.read())
    assert frame.select("trial", "windows_seen", "sql").rows() == [(0, 3, 0.7), (0, 27, 0.6), (1, 3, 0.75), (2, 3, 0.5)]


def test_a_sweep_is_json(tmp_path: Path) -> None:
    """Also one with a metric that is not a number, and one without any result."""
    study = some_sweep(tmp_path)
    study.record(3, result(3, float("nan")))
    loaded = json.loads(json.dumps(as_dict(study.read()), allow_nan=False))
    assert loaded["state"] == "interrupted"
    assert loaded["results"][-1]["sql"] is None
    assert [setting["metrics"]["sql"] for setting in loaded["zero_shot"]] == [0.8, 0.9]
    (tmp_path / "empty").mkdir()
    json.dumps(as_dict(new_study(tmp_path / "empty").read()), allow_nan=False)


def test_listed_sweeps_say_whether_they_live(tmp_path: Path) -> None:
    """Running while somebody holds the lease, interrupted after, finished when the study says so."""
    study = some_sweep(tmp_path / "one")
    with Lease(tmp_path / "one"):
        assert sweeps(tmp_path)[0]["state"] == "running"
    about = sweeps(tmp_path)[0]
    assert (about["state"], about["trials"], about["score"]) == ("interrupted", 3, 0.6)
    study.note("ended", "2026-01-01")
    assert sweeps(tmp_path)[0]["state"] == "finished"
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "study.journal").touch()
    assert sweeps(tmp_path)[1]["state"] == "unreadable"


def test_one_bad_folder_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged line is told with its number, a folder of somebody else's is passed over."""
    for name in ("damaged", "sound", "theirs"):
        some_sweep(tmp_path / name)
    journal = tmp_path / "damaged" / JOURNAL
    journal.write_bytes(journal.read_bytes().replace(b'{"op_code"', b'{"op_co\0\0"', 1).replace(b"}", b"", 1))
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "theirs" and access(path, mode))
    damaged, sound = sweeps(tmp_path)
    assert (damaged["state"], sound["state"]) == ("unreadable", "interrupted")
    assert "line 1 is damaged" in damaged["about"]


def test_a_log_ends_with_the_reason(tmp_path: Path) -> None:
    """A trial that does not exist is refused with the range."""
    some_sweep(tmp_path)
    for name in ("logs", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "logs/2.log").write_text("3 windows\n")
    assert log_of(tmp_path, 2) == "3 windows\nfailed: the loss was NaN\n"
    assert "nothing" in log_of(tmp_path, 3)
    new_study(tmp_path / "empty")
    with pytest.raises(InputError, match="no trial has begun yet, but 0"):
        log_of(tmp_path / "empty", 0)
    with pytest.raises(InputError, match="numbered 0 to 3, but 4"):
        log_of(tmp_path, 4)


def test_a_finalist_s_log_is_found_by_its_seed(tmp_path: Path) -> None:
    """Its number in its own study is nobody's business; a seed that it was not trained with is refused."""
    study = some_sweep(tmp_path)
    second = study.finalists()
    study.note("finalists", {"trials": [0], "seeds": [1]})
    second.fail(study.repeat(0, 1, into=second).number, "no memory")
    (tmp_path / "logs/finalists").mkdir(parents=True)
    (tmp_path / "logs/finalists/0.log").write_text("3 windows\n")
    assert log_of(tmp_path, 0, seed=1) == "3 windows\nfailed: no memory\n"
    with pytest.raises(InputError, match=r"not trained again with seed 4\. Trials and their seeds: 0 with 1"):
        log_of(tmp_path, 0, seed=4)


def test_finalists_are_json(tmp_path: Path) -> None:
    """From best to worst, each with its seeds, and how much better than zero-shot."""
    study = some_sweep(tmp_path)
    second = study.finalists()
    study.note("finalists", {"trials": [0], "seeds": [1, 2]})
    for seed, score in ((1, 0.5), (2, 0.7)):
        number = study.repeat(0, seed, into=second).number
        second.record(number, result(27, score))
        second.finish(number, 27)
    [row] = json.loads(json.dumps(as_dict(study.read()), allow_nan=False))["finalists"]
    assert (row["trial"], row["state"], row["searched"]) == (0, "complete", 0.6)
    assert (row["mean"], row["spread"], row["gain"]) == pytest.approx((0.6, 0.1414, 0.25), abs=1e-4)
    assert [(r["seed"], r["state"], r["score"], r["windows_seen"]) for r in row["repeats"]] == [
        (1, "complete", 0.5, 27),
        (2, "complete", 0.7, 27),
    ]


def test_what_is_no_sweep_is_refused_before_the_question(tmp_path: Path) -> None:
    """Nobody is asked whether to remove a folder that will not be removed."""
    result = CliRunner().invoke(app, ["rm", str(tmp_path)], input="n\n")
    assert isinstance(result.exception, InputError)
    assert "Remove" not in result.output


def test_a_damaged_sweep_is_not_removed_by_half(tmp_path: Path) -> None:
    """Where its checkpoints are only its study knows; what to remove instead is told before anybody is asked."""
    some_sweep(tmp_path / "one")
    journal = tmp_path / "one" / JOURNAL
    journal.write_bytes(b"damaged\n" + journal.read_bytes())
    result = CliRunner().invoke(app, ["rm", str(tmp_path / "one")], input="y\n")
    assert isinstance(result.exception, StorageError)
    assert "To be rid of the sweep, delete its folder" in str(result.exception)
    assert journal.exists()


def test_only_idle_sweeps_are_removed(tmp_path: Path) -> None:
    """Never another folder, never under a running driver; checkpoints alone if asked."""
    some_sweep(tmp_path / "one")
    (tmp_path / "one/checkpoints/0000/27").mkdir(parents=True)
    (tmp_path / "one/checkpoints/0000/27/w").write_bytes(b"x" * 1000)
    assert size_of(tmp_path / "one/checkpoints") == 1000
    with pytest.raises(InputError, match="only a sweep is removed"):
        remove(tmp_path)
    with Lease(tmp_path / "one"), pytest.raises(InputError, match="drives this sweep"):
        remove(tmp_path / "one")
    remove(tmp_path / "one", only_checkpoints=True)
    assert not (tmp_path / "one/checkpoints").exists()
    remove(tmp_path / "one", only_checkpoints=True)
    remove(tmp_path / "one")
    assert not (tmp_path / "one").exists()


def test_a_killed_driver_is_seen_at_once(tmp_path: Path) -> None:
    """A process that holds the lease is running; killed with SIGKILL, its sweep is interrupted, without any wait."""
    study = some_sweep(tmp_path / "one")
    (tmp_path / "two").mkdir()
    hold = "import sys, time; from pathlib import Path; from chronotune.lease import Lease\n"
    hold += (
        "Lease(Path(sys.argv[1])).__enter__(), Lease(Path(sys.argv[2])).__enter__(), print(flush=True), time.sleep(99)"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "one"), str(tmp_path / "two")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        assert sweeps(tmp_path)[0]["about"].startswith("running, 3/4 trials")
        (tmp_path / "two" / "study.journal").touch()
        with pytest.raises(InputError, match="only just beginning"):
            read(tmp_path / "two")
        driver.kill()
    assert sweeps(tmp_path)[0]["about"].startswith("interrupted, 3/4 trials")
    with pytest.raises(InputError, match="never begun"):
        read(tmp_path / "two")
    study.note("finalists", {"trials": [0], "seeds": [1, 2]})
    second = study.finalists()
    second.fail(study.repeat(0, 1, into=second).number, "no memory")
    assert "1/2 trainings of finalists" in sweeps(tmp_path)[0]["about"]
