"""Work beside a block: it waits for the block's result, and its errors come out."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import Mock

import pytest

from chronotune import checkpoint, trial, validation
from chronotune.data.prepare import load, trial_data
from chronotune.errors import ChronotuneError, StorageError
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


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_error_of_the_block_comes_out(error: type[BaseException], told: bool) -> None:
    """Whatever it is, also when it comes after the result; before it, the work cleans up."""
    seen = list[str]()

    def work(result: Callable[[], int]) -> None:
        try:
            seen.append(str(result()))
        except CancelledError:
            seen.append("cleaned up")
            raise

    with pytest.raises(error, match="wrong"), meanwhile(work) as future:
        _raise_with(error("wrong"), future if told else None)
    assert seen == (["1"] if told else ["cleaned up"])


def _raise_with(error: BaseException, future: Future[int] | None) -> NoReturn:
    if future:
        future.set_result(1)
    raise error


def test_a_block_without_a_result_does_not_wait_for_ever() -> None:
    """The work is told, and its error comes out."""

    def work(told: Callable[[], int]) -> None:
        told()

    def block() -> None:
        with meanwhile(work):
            pass

    with pytest.raises(CancelledError):
        block()


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
        assert (draft / "state.pt").exists()
        assert not draft.with_name("3").exists()
        return score(*asked)

    monkeypatch.setattr(trial, "validate", waiting)
    assert next(TrialRun(worker, 7, POINT).results())[BUDGET] == 3
    assert draft.with_name("3").exists()
    monkeypatch.setattr(trial, "validate", lambda *asked: ({**score(*asked)[0], "sql": math.nan}, ""))
    with pytest.raises(ChronotuneError, match="not finite"):
        next(TrialRun(worker, 8, POINT).results())
    monkeypatch.setattr(trial, "validate", Mock(side_effect=RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        next(TrialRun(worker, 8, POINT).results())
    assert not list((tmp_path / "checkpoints/0008").iterdir())
    monkeypatch.setattr(trial, "validate", score)
    monkeypatch.setattr(checkpoint, "sha256", Mock(side_effect=OSError("no space left")))
    with pytest.raises(StorageError, match="no space left"):
        next(TrialRun(worker, 9, POINT).results())
