"""The winner's checkpoint is damaged or gone: it is trained again, to the same weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chronotune import checkpoint, trial
from chronotune.again import LastWorker
from chronotune.data.prepare import load, trial_data
from chronotune.device import MEMORY
from chronotune.errors import CheckpointLostError, ChronotuneError
from chronotune.search import result_of
from chronotune.stores import trial_key
from chronotune.study import Result, TrialRecord
from chronotune.trial import Assignment, TrialRun, Worker
from engine_parts import small_model
from sweep_parts import POINT, small_recipe

SEED = 5


@pytest.fixture(scope="module")
def assignment(tmp_path_factory: pytest.TempPathFactory) -> Assignment:
    """Of the small recipe with a small random model."""
    weights, directory = tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("sweep")
    small_model().save_pretrained(weights)
    recipe = small_recipe(weights)
    return Assignment(recipe, trial_data(load(recipe), recipe), directory)


def trained(assignment: Assignment, seed: int | None = None) -> tuple[TrialRecord, Path]:
    """A training that has ended, and the folder of its best checkpoint."""
    results = tuple(Result(**result_of(one)) for one in TrialRun(Worker(assignment), 1, POINT, seed).results())
    record = TrialRecord(1, "complete", POINT, results, None, None, None, of=None if seed is None else 0, seed=seed)
    assert record.best is not None
    key = trial_key(1, repeat=seed is not None)
    return record, assignment.directory / "checkpoints" / key / str(record.best.windows_seen)


def damage(folder: Path) -> None:
    """Change the last byte of the weights."""
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("seed", [None, SEED])
@pytest.mark.parametrize("fault", [damage, shutil.rmtree])
def test_it_is_trained_again_to_the_same_weights(
    assignment: Assignment, tmp_path: Path, fault: Any, seed: int | None
) -> None:
    """Whether it is a searched trial or a finalist's repeat; its log says so, and nothing is left of it."""
    assignment = replace(assignment, directory=tmp_path / "sweep")
    record, folder = trained(assignment, seed)
    worker = LastWorker(assignment, threads=2)
    worker.export_best(record, tmp_path / "before")
    fault(folder)
    there = sorted(path.name for path in folder.parent.glob("*"))
    worker.export_best(record, tmp_path / "after")
    before, after = (tmp_path / name / "model.safetensors" for name in ("before", "after"))
    assert before.read_bytes() == after.read_bytes()
    log = assignment.directory / "logs" / ("1.log" if seed is None else "finalists/1.log")
    assert "it is trained again up to 27 windows" in log.read_text()
    assert sorted(path.name for path in folder.parent.glob("*")) == there
    assert sorted(path.name for path in assignment.directory.iterdir()) == ["checkpoints", "logs"]


def test_its_steps_are_split_as_they_were(
    assignment: Assignment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory was short in the search, and is not now."""
    assignment = replace(assignment, directory=tmp_path / "sweep")
    with monkeypatch.context() as short:
        short.setenv(MEMORY, "1")
        record, folder = trained(assignment)
    assert record.best is not None
    assert record.best.attributes["splits"] == [[0, 1]]
    worker = LastWorker(assignment)
    worker.export_best(record, tmp_path / "before")
    damage(folder)
    worker.export_best(record, tmp_path / "after")
    before, after = (tmp_path / name / "model.safetensors" for name in ("before", "after"))
    assert before.read_bytes() == after.read_bytes()


def test_what_cannot_be_read_now_is_not_lost(
    assignment: Assignment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the disk trains nothing again, and removes nothing."""
    assignment = replace(assignment, directory=tmp_path / "sweep")
    record, folder = trained(assignment)
    before = {path: path.read_bytes() for path in folder.iterdir()}

    def refuse(_: Path) -> str:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(checkpoint, "sha256", refuse)
        with pytest.raises(ChronotuneError, match=r"cannot be read \(\[Errno 5\] Input/output error\)") as caught:
            LastWorker(assignment).export_best(record, tmp_path / "none")
    assert not isinstance(caught.value, CheckpointLostError)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert not (assignment.directory / "logs").exists()


def test_another_score_is_refused(assignment: Assignment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not what won; the error says where it would be, and a next try begins anew."""
    assignment = replace(assignment, directory=tmp_path / "sweep")
    record, folder = trained(assignment)
    damage(folder)
    real: Any = vars(trial)["validate"]

    def worse(*arguments: Any) -> Any:
        scores, losses = real(*arguments)
        return {**scores, "sql": scores["sql"] * 1.001}, losses

    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(trial, "validate", worse)
        with pytest.raises(ChronotuneError, match=r"must reach its score, .* where it was trained: .*, device cpu"):
            LastWorker(assignment).export_best(record, tmp_path / "after")
    assert not (tmp_path / "after/model.safetensors").exists()
    LastWorker(assignment).export_best(record, tmp_path / "after")
    assert (tmp_path / "after/model.safetensors").exists()


def test_what_cannot_be_trained_is_not_exported(assignment: Assignment, tmp_path: Path) -> None:
    """The error is that of the training."""
    impossible = POINT.model_copy(update={"context_length": 10**6})
    record = TrialRecord(2, "complete", impossible, (Result(27, 0.5, {}),), None, None, None)
    with pytest.raises(ChronotuneError, match="context"):
        LastWorker(assignment).export_best(record, tmp_path / "none")
