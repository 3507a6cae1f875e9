"""What the timeline calls a sound sweep on its services: the study's database, the object store, MLflow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import timeline
from services import faults_of_runs, faults_of_store

from sweep_parts import ask, new_study, result

WINNER = ["0003/27/meta.json", "0003/27/model.safetensors"]


def test_checkpoints_are_in_the_bucket_alone(tmp_path: Path) -> None:
    """The winner's is there and whole; none in the folder, nothing of Ray Tune's."""
    assert faults_of_store(WINNER, tmp_path, "0003/27") == []
    assert faults_of_store(WINNER[1:], tmp_path, "0003/27") == ["the winner's checkpoint 0003/27 is not in the bucket"]
    (tmp_path / "checkpoints").mkdir()
    left = faults_of_store([*WINNER, ".tune/tune/x.json"], tmp_path, "0003/27")
    assert left == ["checkpoints lie in the sweep's folder", ".tune/tune/x.json is left in the bucket"]


def test_mlflow_has_every_run_once_and_ended() -> None:
    """One of each trial and one of the sweep."""
    whole = [("sweep", "FINISHED"), ("trial-0", "FINISHED"), ("trial-1", "KILLED")]
    assert faults_of_runs(whole, 2) == []
    assert faults_of_runs(whole, 3) == ["MLflow has 3 runs, not those of 3 trials and 1 sweep"]
    assert faults_of_runs([*whole, ("trial-1", "RUNNING")], 2) == [
        "MLflow has trial-1 2 times",
        "MLflow's trial-1 is RUNNING",
    ]


def test_what_services_hold_is_judged(tmp_path: Path) -> None:
    """The database must have the study, no journal may be there, and the rest by the functions above."""
    directory = tmp_path / "sweep"
    directory.mkdir()
    study = new_study(directory)
    study.record(number := ask(study), result(27, 0.5))
    study.finish(number, 27)
    study.note("winner", {"number": number, "windows_seen": 27})
    objects = SimpleNamespace(kept=lambda name: ["0000/27/meta.json"])
    runs, studies = [("sweep", "FINISHED"), ("trial-0", "FINISHED")], [timeline.NAME]
    services: Any = SimpleNamespace(objects=objects, runs=lambda: runs, studies=lambda: studies)
    assert timeline.outside_verdict(directory, services, 1) == ["there is a journal"]  # as `new_study` makes one
    studies.clear()
    runs.pop()
    assert timeline.outside_verdict(directory, services, 1) == [
        "there is a journal",
        "the database has the studies []",
        "MLflow has 1 runs, not those of 1 trials and 1 sweep",
    ]
