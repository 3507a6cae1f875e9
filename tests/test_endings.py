"""A worker whose machine is taken away keeps what it has done; one that is stuck is in test_stuck.py."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chronotune import endings
from chronotune.cluster import is_given_up
from chronotune.data.prepare import load, trial_data
from chronotune.endings import Notice, ToldToGo
from chronotune.errors import StorageError
from chronotune.records import BUDGET, OBJECTIVE
from chronotune.trial import Assignment, FineTuneTrial, TrialRun, Worker
from chronotune.validation import validate
from engine_parts import small_model
from sweep_parts import POINT, small_recipe


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Put SIGTERM's handler back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def new_worker(tmp_path: Path) -> Callable[[], Worker]:
    """Makes workers, as of several processes, of one sweep."""
    small_model().save_pretrained(tmp_path / "weights")
    recipe = small_recipe(tmp_path / "weights")
    data = trial_data(load(recipe), recipe)
    return lambda: Worker(Assignment(recipe, data, tmp_path / "sweep"))


def after(steps: int) -> Callable[[], bool]:
    """Something to ask before each step that says yes when so many have been made."""
    asked = iter(range(10**6))
    return lambda: next(asked) >= steps


def told(worker: Worker, steps: int) -> Worker:
    """The worker, which after so many steps is told to go."""
    notice = Notice()
    notice.__class__ = type("Counted", (Notice,), {"__call__": staticmethod(after(steps))})
    worker.notice = notice
    return worker


def scores(results: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """What is compared."""
    return [(result[BUDGET], result[OBJECTIVE]) for result in results]


@pytest.mark.parametrize("steps", [1, 2, 4, 6])
def test_work_between_two_rungs_is_kept(new_worker: Callable[[], Worker], steps: int) -> None:
    """Another worker goes on from that very step, and scores as if nothing had happened; nothing is reported twice."""
    whole = scores(list(TrialRun(new_worker(), 1, POINT).results()))
    seen: list[dict[str, Any]] = []
    with pytest.raises(ToldToGo):
        seen += TrialRun(told(new_worker(), steps), 0, POINT).results()
    kept = sorted(int(path.name) for path in (new_worker().assignment.directory / "checkpoints/0000").iterdir())
    run = TrialRun(new_worker(), 0, POINT)
    rest = list(run.results())
    assert kept
    assert scores(rest) == [score for score in whole if score[0] >= max(kept)]


def test_a_notice_during_scoring_does_not_lose_the_training_before(
    new_worker: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is written, and another worker reports what it holds."""
    [unbroken, *_] = TrialRun(new_worker(), 1, POINT).results()

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(*arguments)

    signal.signal(signal.SIGTERM, lambda *_: pytest.fail("the process would have ended"))
    worker = new_worker()
    worker.notice.listen()
    monkeypatch.setattr("chronotune.trial.validate", interrupted)
    with pytest.raises(ToldToGo):
        next(TrialRun(worker, 0, POINT).results())
    monkeypatch.undo()
    assert scores([next(TrialRun(new_worker(), 0, POINT).results())]) == scores([unbroken])


def test_nothing_is_written_twice_where_a_rung_was_just_reached(new_worker: Callable[[], Worker]) -> None:
    """Its checkpoint holds the result, which must not be lost."""
    [unbroken, *_] = TrialRun(new_worker(), 1, POINT).results()
    with pytest.raises(ToldToGo):
        next(TrialRun(told(new_worker(), 1), 0, POINT).results())
    assert scores([next(TrialRun(new_worker(), 0, POINT).results())]) == scores([unbroken])


def test_the_process_ends_for_ray_to_start_the_trial_elsewhere(
    new_worker: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no failure of the trial: no result says so."""

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    task = FineTuneTrial.__new__(FineTuneTrial)
    task.setup({"number": 0, "hyperparameters": POINT.model_dump()}, new_worker().assignment)
    told(task._worker, 1)
    with pytest.raises(SystemExit):
        task.step()
    assert "told to go" in (task._worker.assignment.directory / "logs/0.log").read_text()
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL


def test_a_signal_is_a_notice_while_somebody_asks() -> None:
    """Otherwise, and the second time, it ends the process as it did before."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    notice = Notice()
    notice.listen()
    os.kill(os.getpid(), signal.SIGTERM)
    assert (notice(), len(ended)) == (False, 1)
    with notice.awaited():
        os.kill(os.getpid(), signal.SIGTERM)
        assert (notice(), len(ended)) == (True, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(ended) == 2


def test_a_checkpoint_that_cannot_be_read_now_halts(
    new_worker: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is whole, as far as anybody knows: to train it again, or to delete it, would be too soon."""
    next(TrialRun(new_worker(), 0, POINT).results())

    def stale(*_: Any) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("chronotune.checkpoint.sha256", stale)
    with pytest.raises(StorageError, match=r"cannot be read \(.*Stale file handle\); check the disk and rights"):
        next(TrialRun(new_worker(), 0, POINT).results())


def test_a_driver_in_the_background_is_ended_too() -> None:
    """A shell lets it ignore Ctrl-C, and SIGTERM is all that reaches it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), endings.terminated_like_interrupted():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_node_that_is_given_up_is_asked_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before every step: the answer comes from the cluster's head."""
    asked: list[float] = []
    now = [0.0]
    monkeypatch.setattr(endings.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]

    def is_given_up() -> bool:
        asked.append(now[0])
        return now[0] > 11

    notice = Notice(is_given_up)
    answers = []
    for now[0] in (1.0, 2.0, 6.0, 7.0, 12.0, 13.0):
        answers.append(notice())
    assert asked == [6.0, 12.0]
    assert answers == [False] * 4 + [True] * 2


def test_outside_ray_nothing_is_given_up() -> None:
    """`chronotune train` asks too."""
    assert not is_given_up()
