"""The winner's checkpoint is damaged or gone: it is trained again, to the same weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chronotune.again import LastWorker
from chronotune.data.prepare import load, trial_data
from chronotune.errors import ChronotuneError
from chronotune.stores import trial_key
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


@pytest.mark.parametrize("seed", [None, SEED])
@pytest.mark.parametrize("fault", ["damaged", "gone"])
def test_it_is_trained_again_to_the_same_weights(
    assignment: Assignment, tmp_path: Path, fault: str, seed: int | None
) -> None:
    """Whether it is a searched trial or a finalist's repeat; its log says so."""
    *_, last = TrialRun(Worker(assignment), 1, POINT, seed).results()
    folder = assignment.directory / "checkpoints" / trial_key(1, repeat=seed is not None)
    worker = LastWorker(assignment, threads=2)
    worker.export(1, POINT, last["windows_seen"], tmp_path / "before", seed)
    if fault == "gone":
        shutil.rmtree(folder)
    else:
        weights = folder / str(last["windows_seen"]) / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    worker.export(1, POINT, last["windows_seen"], tmp_path / "after", seed)
    before, after = (tmp_path / name / "model.safetensors" for name in ("before", "after"))
    assert before.read_bytes() == after.read_bytes()
    log = assignment.directory / "logs" / ("1.log" if seed is None else "finalists/1.log")
    assert "it is trained again up to 27 windows" in log.read_text()


def test_what_cannot_be_trained_is_not_exported(assignment: Assignment, tmp_path: Path) -> None:
    """The error is that of the training."""
    impossible = POINT.model_copy(update={"context_length": 10**6})
    with pytest.raises(ChronotuneError, match="context"):
        LastWorker(assignment).export(2, impossible, 27, tmp_path / "none")
