"""The recorder between Ray Tune and the study. Without Ray."""

from __future__ import annotations

import errno
import shutil
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from chronotune.errors import ChronotuneError, StorageError
from chronotune.finalists import plan
from chronotune.repeats import FinalistSearcher
from chronotune.search import LAST, StudySearcher, scheduler, was_stopped
from chronotune.trial import Assignment
from chronotune.tuner import SPENT, RemoteWorker, _Recorder, halting_when_unwritable, keep_keys_off_the_wire
from sweep_parts import ask, new_study, result, small_recipe


def test_no_key_travels_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Tune would copy the driver's into what Ray logs and shows; what else it copies stays."""
    from ray.tune.execution import class_cache

    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", class_cache.RAY_CHDIR_TO_TRIAL_DIR):
        monkeypatch.setenv(name, "sesame")
    copied = {*class_cache.ENV_VARS_TO_PROPAGATE, "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", copied)

    def variables(trainable: type) -> dict[str, str]:
        options = class_cache._ActorClassCache().get(trainable)._default_options
        return dict(options["runtime_env"]["env_vars"])

    assert variables(type("Before", (), {}))["AWS_SECRET_ACCESS_KEY"] == "sesame"
    keep_keys_off_the_wire()
    after = variables(type("After", (), {}))
    assert not [name for name in after if name.startswith("AWS_")]
    assert after[class_cache.RAY_CHDIR_TO_TRIAL_DIR] == "sesame"


@pytest.mark.parametrize(("minutes", "wants_more"), [(1.0, False), (3.0, True), (None, True)])
def test_a_sweep_whose_time_was_up_asks_for_nothing_when_it_is_resumed(
    tmp_path: Path, minutes: float | None, wants_more: bool
) -> None:
    """What its earlier drivers have spent counts before the first proposal, not only after it."""
    recipe, study = small_recipe(), new_study(tmp_path)
    study.note(SPENT, 100.0)
    searcher = StudySearcher(study, recipe, scheduler(recipe), wanted=4, slots=lambda: 1)
    nothing: Any = None
    _Recorder(study, searcher, nothing, lambda: None, lambda: None, minutes)
    assert searcher.wants_more() is wants_more


def test_a_full_disk_halts_the_sweep_and_fails_no_trial(tmp_path: Path) -> None:
    """Else trial after trial would fail for nothing; the next driver goes on with the one that found out."""
    recipe, study = small_recipe(), new_study(tmp_path)
    study.note("zero_shot", [])
    searcher = StudySearcher(study, recipe, scheduler(recipe), wanted=4, slots=lambda: 1)
    nothing: Any = None
    recorder = _Recorder(study, searcher, Assignment(recipe, nothing, tmp_path), lambda: None, lambda: None, None)
    proposal = searcher.suggest("t")
    assert isinstance(proposal, dict)
    told = {"failed": "cannot write checkpoint: no space", "halts": True, "done": True}
    recorder.on_trial_result(0, [], SimpleNamespace(config=proposal), told)
    searcher.on_trial_complete("t", told)
    assert isinstance(recorder.failure, StorageError)
    assert str(recorder.failure) == f"cannot write checkpoint: no space, then `chronotune resume {tmp_path}`"
    assert searcher.suggest("u") == searcher.FINISHED
    assert [trial.state for trial in study.trials] == ["running"]


@pytest.mark.parametrize("done", [False, True])
def test_what_the_scheduler_decided_is_recorded(tmp_path: Path, done: bool) -> None:
    """With the result, so that a driver that is killed before the trial's end is told need not decide again."""
    recipe, study = small_recipe(), new_study(tmp_path)
    number, nothing = ask(study), SimpleNamespace(config={})
    searcher = StudySearcher(study, recipe, scheduler(recipe), wanted=4, slots=lambda: 1)
    recorder = _Recorder(study, searcher, Assignment(recipe, nothing, tmp_path), lambda: None, lambda: None, None)  # type: ignore[arg-type]
    told = {"number": number, "windows_seen": 3, "objective": 0.5, "metrics": {}, "attributes": {"steps": 1}}
    recorder.on_trial_result(0, [], nothing, {**told, "done": done})
    assert [result.attributes for result in study.trial(number).results] == [{"steps": 1, LAST: done}]
    assert was_stopped(study.trial(number), study.trials, recipe) is done


def test_a_full_disk_halts_the_finalists_too(tmp_path: Path) -> None:
    """What was not begun stays for the next driver."""
    study = new_study(tmp_path)
    study.record(ask(study), result(27, 0.5))
    study.finish(0, 27)
    wanted = plan({"trials": [0], "seeds": [1, 2, 3]})
    searcher = FinalistSearcher(study, study.finalists(), wanted, 27, slots=lambda: 1)
    assert isinstance(searcher.suggest("t"), dict)
    searcher.close()
    searcher.on_trial_complete("t", {"failed": "no space", "halts": True})
    assert searcher.suggest("u") == searcher.FINISHED
    assert [repeat.state for repeat in study.finalists().trials] == ["running"]
    again = FinalistSearcher(study, study.finalists(), wanted, 27, slots=lambda: 9)
    assert [given["seed"] for name in "abc" if isinstance(given := again.suggest(name), dict)] == [1, 2, 3]


def test_a_study_that_cannot_be_written_halts_with_what_to_do(tmp_path: Path) -> None:
    """Any other error stays what it is."""
    with (
        pytest.raises(StorageError, match=r"No space left on device; .* then `chronotune resume"),
        halting_when_unwritable(tmp_path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StorageError, match="No space left on device"), halting_when_unwritable(tmp_path):
        raise shutil.Error([("from", "to", "[Errno 28] No space left on device")])  # as copytree tells it
    with pytest.raises(FileNotFoundError), halting_when_unwritable(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "No such file")


class _Lost:
    """Ray with one node, where the first so many workers die when they are asked; `begun` counts them."""

    exceptions = ray.exceptions

    def __init__(self, deaths: int, error: Exception | None = None) -> None:
        self.deaths, self.begun = deaths, 0
        self.error = error or ray.exceptions.ActorDiedError()

    def nodes(self) -> list[Any]:
        """A node without GPUs."""
        return [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 1}}]

    def remote(self, **_: Any) -> Any:
        """A class whose instances answer with their number."""
        self.begun += 1
        method = SimpleNamespace(remote=lambda *_: self.begun)
        return lambda _: SimpleNamespace(remote=lambda *_: SimpleNamespace(export=method, predict=method))

    def get(self, reference: int) -> int:
        """An answer, or the death of who should give it."""
        if reference <= self.deaths:
            raise self.error
        return reference


def test_the_winners_worker_may_be_lost_with_its_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another takes over; when that is lost too, the sweep says how it goes on."""
    preset: Any = None
    for deaths, begun in {0: 1, 1: 2, 2: 2}.items():
        fake = _Lost(deaths)
        monkeypatch.setattr("chronotune.tuner.ray", fake)
        monkeypatch.setattr(ray, "nodes", fake.nodes)
        worker = RemoteWorker(Assignment(small_recipe(), preset, tmp_path), 1)
        if deaths < 2:
            assert worker.predict(preset, preset, [], 1, []) == deaths + 1
        else:
            with pytest.raises(ChronotuneError, match=f"two have died: .* `chronotune resume {tmp_path}`"):
                worker.export(0, preset, 27, tmp_path)
        assert fake.begun == begun


def test_a_worker_that_cannot_begin_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's first line of that only says where; the cause ends the traceback."""
    try:
        raise OSError(28, "No space left on device")
    except OSError as cause:
        failed = ray.exceptions.RayTaskError("LastWorker.__init__", traceback.format_exc(), cause, ip="127.0.0.1")
    fake = _Lost(2, ray.exceptions.ActorDiedError(failed))
    nothing: Any = None
    monkeypatch.setattr("chronotune.tuner.ray", fake)
    monkeypatch.setattr(ray, "nodes", fake.nodes)
    worker = RemoteWorker(Assignment(small_recipe(), nothing, tmp_path), 1)
    with pytest.raises(ChronotuneError, match=r"two have died: OSError: \[Errno 28\] No space left on device\. See"):
        worker.export(0, nothing, 27, tmp_path)
