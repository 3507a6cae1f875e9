"""Work beside a block: it waits for the block's result, and its errors come out."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chronotune import trial, validation
from chronotune.data.prepare import load, trial_data
from chronotune.errors import ChronotuneError
from chronotune.meanwhile import meanwhile
from chronotune.records import BUDGET
from chronotune.trial import Assignment, TrialRun, Worker
from engine_parts import small_model
from sweep_parts import POINT, small_recipe


def test_work_begins_beside_the_block_and_ends_with_its_result() -> None:
    """In a thread of its own, which has ended when the block has."""
    begun, done = threading.Event(), list[tuple[int, bool]]()

    def work(told: Callable[[], int]) -> None:
        begun.set()
        done.append((told(), threading.current_thread() is threading.main_thread()))

    with meanwhile(work) as result:
        assert begun.wait(10), "it does not wait for the block"
        assert not done
        result.set_result(7)
    assert done == [(7, False)]


def test_an_error_of_the_block_reaches_the_work_and_comes_out() -> None:
    """So that it cleans up."""
    seen = list[str]()

    def work(told: Callable[[], int]) -> None:
        try:
            told()
        except ValueError as error:
            seen.append(str(error))
            raise RuntimeError("cleaned up") from error

    with pytest.raises(ValueError, match="wrong"), meanwhile(work):
        raise ValueError("wrong")
    assert seen == ["wrong"]


def test_an_error_of_the_work_comes_out_at_the_end() -> None:
    """The block itself is not disturbed."""

    def work(_: Callable[[], int]) -> None:
        raise OSError("disk full")

    def block() -> None:
        with meanwhile(work) as result:
            result.set_result(1)

    with pytest.raises(OSError, match="disk full"):
        block()


def test_weights_are_written_while_they_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint appears when the score is there; where that is no number, nothing of it is left."""
    small_model().save_pretrained(tmp_path / "model")
    recipe = small_recipe(tmp_path / "model")
    worker = Worker(Assignment(recipe, trial_data(load(recipe), recipe), tmp_path))
    draft = tmp_path / "checkpoints/0007/.3.partial"
    score = validation.validate

    def waiting(*asked: Any) -> Any:
        until = time.monotonic() + 20
        while not (draft / "state.pt").exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert (draft / "weights.safetensors").exists()
        assert not draft.with_name("3").exists()
        return score(*asked)

    monkeypatch.setattr(trial, "validate", waiting)
    assert next(TrialRun(worker, 7, POINT).results())[BUDGET] == 3
    assert draft.with_name("3").exists()
    monkeypatch.setattr(trial, "validate", lambda *asked: ({**score(*asked)[0], "sql": math.nan}, ""))
    with pytest.raises(ChronotuneError, match="not finite"):
        next(TrialRun(worker, 8, POINT).results())
    assert not list((tmp_path / "checkpoints/0008").iterdir())
