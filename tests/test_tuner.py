"""The recorder between Ray Tune and the study. Without Ray."""

from __future__ import annotations

import errno
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.tune import PlacementGroupFactory
from ray.tune.error import TuneError
from ray.tune.experiment import Trial
from ray.tune.tune import _setup_signal_catching

from chronotune import tuner
from chronotune.endings import halting_when_unwritable
from chronotune.errors import WORKER_LOST, ChronotuneError, InputError, StorageError
from chronotune.finalists import plan
from chronotune.repeats import FinalistSearcher
from chronotune.report import conclude
from chronotune.search import LAST, MAX_WORKER_DEATHS, StudySearcher, scheduler, was_stopped
from chronotune.study import Study
from chronotune.trial import Assignment
from chronotune.tuner import SPENT, RemoteWorker, _forget, _Recorder, _was_interrupted, keep_keys_off_the_wire
from sweep_parts import ask, new_study, result, small_recipe
from test_report import console, text_of


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


def test_little_is_kept_of_a_trial_that_has_ended(tmp_path: Path) -> None:
    """Neither results nor parameters, and equal requests for resources once; Tune can still write it down."""
    requests: dict[Any, Any] = {}
    ended = [Trial("any", stub=True, evaluated_params={"learning_rate": 1e-3}) for _ in range(2)]
    for trial in ended:
        trial.placement_group_factory = PlacementGroupFactory([{"CPU": 1}])
        trial.update_last_result({"windows_seen": 27, "metrics": {"sql": 0.5}})
        _forget(trial, requests)
        assert trial.last_result.keys() == {"done", "trial_id"}
        assert not trial.metric_analysis
        assert not trial.evaluated_params
        assert "sql" not in "".join(trial.get_json_state())
    assert ended[0].placement_group_factory is ended[1].placement_group_factory
    other = Trial("any", stub=True)
    other.placement_group_factory = PlacementGroupFactory([{"CPU": 2}])
    _forget(other, requests)
    assert other.placement_group_factory == PlacementGroupFactory([{"CPU": 2}])


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


def test_no_trial_begins_once_the_minutes_are_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs then goes on to its end; the study notes why no more came, and the conclusion says it."""
    recipe = small_recipe(budget={"trials": 4, "windows": 27, "minutes": 2})
    study, seconds, nothing = new_study(tmp_path, recipe), [1000.0], SimpleNamespace()
    study.note("zero_shot", [])

    def fit(_: Any, searcher: StudySearcher, __: Any, recorder: _Recorder) -> bool:
        while isinstance(proposal := searcher.suggest(name := f"t{len(study.trials)}"), dict):
            seconds[0] += 50
            recorder.on_step_end(1, [])
            study.record(proposal["number"], result(27, 0.5))
            searcher.on_trial_complete(name, {"windows_seen": 27})
        return False

    monkeypatch.setattr(tuner, "_fit", fit)
    monkeypatch.setattr(tuner, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 4}}])
    tuner.run_tuner(study, Assignment(recipe, nothing, tmp_path), lambda: None)  # type: ignore[arg-type]
    assert [trial.state for trial in study.trials] == ["complete"] * 3
    assert (study.attribute(SPENT), study.attribute("stopped")) == (150.0, "budget.minutes is spent")
    conclude(page := console(), tmp_path, study.read())
    assert "no more trials, although 4 were wanted: budget.minutes is spent" in text_of(page)


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
    with pytest.raises(StorageError) as halted:
        recorder.on_step_end(1, [])
    assert str(halted.value) == f"cannot write checkpoint: no space, then `chronotune resume {tmp_path}`"
    assert [trial.state for trial in study.trials] == ["running"]


def _recorded(tmp_path: Path, on_record: Callable[[], None] = lambda: None) -> tuple[Study, StudySearcher, _Recorder]:
    recipe, study = small_recipe(), new_study(tmp_path)
    study.note("zero_shot", [])
    searcher = StudySearcher(study, recipe, scheduler(recipe), wanted=4, slots=lambda: 2)
    nothing: Any = None
    recorder = _Recorder(study, searcher, Assignment(recipe, nothing, tmp_path), on_record, lambda: None, None)
    return study, searcher, recorder


def test_an_end_that_cannot_be_told_halts_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Tune would take it for a failure of the trial, and train it again; the next driver tells it."""
    study, searcher, recorder = _recorded(tmp_path)
    assert isinstance(searcher.suggest("t"), dict)
    study.record(0, result(27, 0.5))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(study, "finish", full)
        searcher.on_trial_complete("t", {"windows_seen": 27})
    with pytest.raises(OSError, match="No space left"):
        recorder.on_step_end(1, [])
    assert [trial.state for trial in study.trials] == ["running"]
    again = StudySearcher(study, small_recipe(), scheduler(small_recipe()), wanted=1, slots=lambda: 1)
    assert again.suggest("u") == again.FINISHED
    assert [trial.state for trial in study.trials] == ["complete"]


def test_what_fails_at_a_trials_end_halts_the_sweep(tmp_path: Path) -> None:
    """Also where the study was told of it already."""

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    _, searcher, recorder = _recorded(tmp_path, full)
    proposal = searcher.suggest("t")
    recorder.on_trial_complete(1, [], SimpleNamespace(config=proposal))
    with pytest.raises(OSError, match="No space left"):
        recorder.on_step_end(1, [])


def test_a_trial_that_came_to_a_dead_worker_is_handed_out_again(tmp_path: Path) -> None:
    """Ray Tune tells of such a death twice, and then gives the trial up; only so many deaths are the trial's own."""
    study, searcher, recorder = _recorded(tmp_path)
    for name in "abc"[: MAX_WORKER_DEATHS + 1]:
        proposal = searcher.suggest(name)
        assert isinstance(proposal, dict)
        assert proposal["number"] == 0
        trial = SimpleNamespace(config=proposal, trial_id=name, error_file=None)
        assert [one.state for one in study.trials] == ["running"]
        recorder.on_trial_recover(1, [], trial)
        searcher.on_trial_complete(name, error=True)
    assert [one.reason for one in study.trials] == [WORKER_LOST]


def test_ray_tune_is_begun_again_for_a_trial_that_was_lost_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came to a dead worker after the last proposal: Tune ends without it."""
    study, searcher, _ = _recorded(tmp_path)
    given = list[int]()

    def fit(_: Any, searcher: StudySearcher, __: Any, recorder: _Recorder) -> bool:
        name = f"t{len(given)}"
        while isinstance(proposal := searcher.suggest(name), dict):
            given.append(proposal["number"])
            recorder.on_trial_start(1, [], trial := SimpleNamespace(config=proposal, trial_id=name, error_file=None))
            if given == [0, 1, 2, 3]:
                recorder.on_trial_recover(1, [], trial)
                searcher.on_trial_complete(name, error=True)
                return False
            study.record(proposal["number"], result(27, 0.5))
            searcher.on_trial_complete(name, {"windows_seen": 27})
        return False

    monkeypatch.setattr(tuner, "_fit", fit)
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 4}}])
    nothing: Any = None
    assignment, asha = Assignment(small_recipe(), nothing, tmp_path), scheduler(small_recipe())
    tuner.drive(study, assignment, searcher, asha, lambda: None, lambda: None)
    assert given == [0, 1, 2, 3, 3]
    assert [trial.state for trial in study.trials] == ["complete"] * 4


def test_a_ctrl_c_is_told_from_an_end() -> None:
    """Ray Tune returns after both; its own handler stays where none came."""
    before = signal.getsignal(signal.SIGINT)
    try:
        _setup_signal_catching()
        assert not _was_interrupted(before)
        signal.raise_signal(signal.SIGINT)
        assert _was_interrupted(before)
    finally:
        signal.signal(signal.SIGINT, before)


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
    assert was_stopped(study.trial(number)) is done


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
    with pytest.raises(StorageError, match="No space left on device"), halting_when_unwritable(tmp_path):
        _fail_as_ray_tune_does()
    with pytest.raises(InputError, match="ours"), halting_when_unwritable(tmp_path):
        raise InputError("ours") from OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), halting_when_unwritable(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "No such file")


def _fail_as_ray_tune_does() -> None:
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError:
        raise TuneError(traceback.format_exc())  # noqa: B904


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
