"""Ray Tune over the study: trials on reused workers, every result recorded before anything follows from it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import TrialScheduler

from chronotune.again import LastWorker
from chronotune.cluster import gpus_per_trial, resources_of_trial, slots_lately, threads_of_the_last
from chronotune.config.model import ModelPreset
from chronotune.config.recipe import Recipe
from chronotune.config.space import Hyperparameters
from chronotune.data.panel import FloatArray, Panel, Window
from chronotune.errors import ChronotuneError, StorageError
from chronotune.logs import log_file, log_name
from chronotune.records import ZERO_SHOT
from chronotune.search import LAST, MAX_WORKER_DEATHS, RecordedSearcher, StudySearcher, result_of, scheduler
from chronotune.stores import SCRATCH, prune
from chronotune.study import Result, Study, TrialRecord
from chronotune.threads import lend
from chronotune.trial import Assignment, FineTuneTrial

log = logging.getLogger("chronotune.tuner")

SPENT = "seconds"
"""Attribute of the study: wall time that its drivers have spent searching."""

MINUTES = "minutes"
"""Attribute of the study: `budget.minutes` and what was added to it; absent while nothing was."""


def run_tuner(study: Study, assignment: Assignment, on_record: Callable[[], None]) -> None:
    """Run the trials that the study still wants; returns when all have ended, or the time is up.

    Args:
        study: Open for writing.
        assignment: What every worker gets, through Ray's object store.
        on_record: Called after every change of the study.

    Raises:
        ChronotuneError: The zero-shot model could not be scored, so that nothing has a reference.
        KeyboardInterrupt: Ctrl-C was pressed; running trials go on at the next call.
    """
    recipe = assignment.recipe
    study.note("stopped", None)
    asha = scheduler(recipe)
    searcher = StudySearcher(study, recipe, asha, wanted=study.attribute("trials"), slots=slots_lately(recipe.cluster))

    def tidy() -> None:
        prune(assignment.store, study.trials, recipe.checkpoints_at_work)

    drive(study, assignment, searcher, asha, on_record, tidy, minutes_of(recipe, study))
    study.note("stopped", searcher.stopped_by)


def minutes_of(recipe: Recipe, study: Study) -> float | None:
    """The limit of wall time, with what extensions added to it."""
    noted: float | None = study.attribute(MINUTES)
    return recipe.budget.minutes if noted is None else noted


def drive(
    study: Study,
    assignment: Assignment,
    searcher: RecordedSearcher,
    asha: TrialScheduler,
    on_record: Callable[[], None],
    tidy: Callable[[], None],
    minutes: float | None = None,
) -> None:
    """Let Ray Tune run what `searcher` proposes; returns when that has ended, or `minutes` are over.

    Args:
        study: Open for writing; what `searcher` hands out are its trials.
        assignment: What every worker gets, through Ray's object store.
        searcher: Decides what runs.
        asha: Decides what is stopped early.
        on_record: Called after every change of the study.
        tidy: Called when a trial has ended, to delete the checkpoints that nobody needs any more.
        minutes: Of the study's drivers together, after which nothing new is proposed.

    Raises:
        ChronotuneError: The zero-shot model could not be scored, so that nothing has a reference.
        KeyboardInterrupt: Ctrl-C was pressed; running trials go on at the next call.
    """
    keep_keys_off_the_wire()
    recorder = _Recorder(study, searcher, assignment, on_record, tidy, minutes)
    for module in ("tune_controller", "experiment_state"):  # our recorder tells of deaths; snapshots are never read
        logging.getLogger(f"ray.tune.execution.{module}").setLevel(logging.CRITICAL)
    goes_on = True
    while goes_on:
        interrupted = _fit(assignment, searcher, asha, recorder)
        recorder.raise_failure()
        # where a worker was lost after the last proposal, Tune has ended without its trial
        goes_on = searcher.has_unfinished and not interrupted
    recorder.note_spent()
    if interrupted or any(trial.state == "running" for trial in study.trials) or searcher.wants_more():
        raise KeyboardInterrupt


def _fit(assignment: Assignment, searcher: RecordedSearcher, asha: TrialScheduler, recorder: _Recorder) -> bool:
    """Ray Tune, once; whether it was interrupted."""
    # Tune insists on a folder that all nodes see; nothing in it is ever read
    scratch, files = assignment.store.scratch
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(FineTuneTrial, assignment=assignment),
            resources_of_trial(assignment.recipe.cluster),
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=asha,
            num_samples=-1,  # until the searcher says that it has finished
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=scratch,
            storage_filesystem=files,
            verbose=0,
            callbacks=[recorder],
            failure_config=tune.FailureConfig(max_failures=MAX_WORKER_DEATHS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    handler = signal.getsignal(signal.SIGINT)
    lend(assignment.directory, 0)  # a driver that was killed may have lent some
    try:
        tuner.fit()
        return _was_interrupted(handler)
    finally:
        _restore(handler)
        lend(assignment.directory, 0)
        assignment.store.remove(SCRATCH)


def keep_keys_off_the_wire() -> None:
    """Let Ray Tune copy no credentials of this process into its workers' runtime environments.

    Ray writes those into its logs and shows them on the dashboard; every node has credentials of its own.
    """
    from ray.tune.execution import class_cache

    copied = class_cache.ENV_VARS_TO_PROPAGATE
    copied -= {name for name in copied if name.startswith("AWS_")}  # in place: it is the module's


def _restore(handler: Any) -> None:
    """Tune leaves its own handler of Ctrl-C behind, which ignores the first one."""
    with suppress(ValueError):  # not the main thread: Tune has not touched it either
        signal.signal(signal.SIGINT, handler)


def _was_interrupted(handler: Any) -> bool:
    """Whether there was a Ctrl-C, which Tune swallows: only then it has put the handler back that was there before."""
    takes = threading.current_thread() is threading.main_thread()
    takes = takes and os.getenv("TUNE_DISABLE_SIGINT_HANDLER", "0") != "1"  # else a Ctrl-C is raised as ever
    return takes and signal.getsignal(signal.SIGINT) is handler


def _name(trial: Any) -> str:
    number = trial.config.get("number")
    return "zero-shot" if number is None else f"{'finalist' if 'seed' in trial.config else 'trial'}-{number}"


def _forget(trial: Any, requests: dict[Any, Any]) -> None:
    """Drop what Tune keeps of an ended trial for as long as the search lasts, but nobody asks for.

    That is its last result, running means of its every number, its flattened parameters, and its own request for
    resources, in whose place it gets the first in `requests` that is equal.
    """
    metadata: Any = getattr(trial, "run_metadata", None)  # Tune's own affair: another version may keep it elsewhere
    for kept in ("metric_analysis", "metric_n_steps"):
        getattr(metadata, kept, {}).clear()
    if hasattr(metadata, "last_result"):
        metadata.last_result = {"done": True}  # not empty: in place of that Tune would ask the worker
    if hasattr(trial, "evaluated_params"):
        trial.evaluated_params = {}
    if request := getattr(trial, "placement_group_factory", None):
        trial.placement_group_factory = requests.setdefault(request, request)


class _Recorder(tune.Callback):  # type: ignore[misc]  # ray ships no types
    """Writes each result into the study. It runs after the scheduler, so the result that stops a trial is seen too."""

    def __init__(
        self,
        study: Study,
        searcher: RecordedSearcher,
        assignment: Assignment,
        on_record: Callable[[], None],
        tidy: Callable[[], None],
        minutes: float | None,
    ) -> None:
        self._study, self._searcher, self._on_record, self._tidy = study, searcher, on_record, tidy
        self._assignment, self._minutes, self._began = assignment, minutes, time.monotonic()
        self._spent_before = study.attribute(SPENT) or 0.0
        self._failure: Exception | None = None  # why the sweep cannot go on
        self._requests: dict[Any, Any] = {}  # for resources, as Tune's trials have them: equal ones once
        self._mind_the_time()  # earlier drivers may have spent it all

    def __getstate__(self) -> dict[str, Any]:
        """Empty, as the searcher's: Tune pickles it into a folder that nobody reads."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """It may be the last, and alone from its beginning."""
        self._searcher.on_trial_start(trial.trial_id)
        self._lend()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Record; an exception here ends the sweep, as it must when the record cannot be written."""
        if ZERO_SHOT in result:
            self._study.note(ZERO_SHOT, result[ZERO_SHOT])
        elif "failed" not in result:
            is_last = bool(result.get("done"))
            told = result_of(result)
            told["attributes"] = {**told["attributes"], LAST: is_last}
            with self._study.together(synced=not is_last):  # else its end is told at once, and waited for
                self._study.record(result["number"], Result(**told))
                self.note_spent()
        elif result.get("halts"):
            self._halt(result["failed"])
        elif ZERO_SHOT in trial.config:
            self._give_up(result["failed"])
        if not result.get("done"):  # else its end is told at once, in `on_trial_complete`
            self._on_record()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """The searcher has told the study how the trial ended; what it leaves on disk and in Tune is not needed."""
        try:
            self._tidy()
            _forget(trial, self._requests)
            with self._study.together(synced=False):  # seconds, if the machine goes down: the next result is waited for
                self.note_spent()
            self._lend()
            self._on_record()
        except Exception as failure:  # Tune would take it for the trial's
            self._failure = self._failure or failure

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A worker died; Ray starts the trial again, and it goes on from its last checkpoint."""
        self._searcher.on_worker_death(trial.trial_id)
        self._log_death(trial)
        log.warning("%s: its worker died; it goes on from its last checkpoint", _name(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A worker died once too often."""
        self._log_death(trial)
        if ZERO_SHOT in trial.config:
            self._give_up(f"its worker died {MAX_WORKER_DEATHS + 1} times")
        self.on_trial_complete(iteration, trials, trial)

    def _log_death(self, trial: Any) -> None:
        """What Ray knows of a death, into the trial's log: Ray's own logs go with its session."""
        told = Path(trial.error_file).read_text(errors="replace") if trial.error_file else "nothing is known of it"
        name = log_name(trial.config.get("number"), repeat="seed" in trial.config)
        with log_file(self._assignment.directory, name):
            log.error("its worker died: %s", told.strip())

    def _lend(self) -> None:
        """The threads of idle slots to those that run, when no trial will come that wants them."""
        if not self._searcher.more_may_come():
            running = self._searcher.running
            lend(self._assignment.directory, threads_of_the_last(self._assignment.recipe.cluster, running))

    def note_spent(self) -> None:
        """Into the study, what its drivers have spent so far."""
        self._study.note(SPENT, round(self._spent(), 1))

    def _spent(self) -> float:
        """Seconds of wall time, those of earlier drivers included."""
        return float(self._spent_before) + time.monotonic() - self._began

    def _give_up(self, reason: str) -> None:
        """Without a reference there is no sweep."""
        self._failure = ChronotuneError(f"the untouched model must be scored to compare with, but: {reason}")

    def _halt(self, reason: str) -> None:
        """Where nothing can be written any more, trial after trial would fail for nothing."""
        self._failure = StorageError(f"{reason}, then `chronotune resume {self._assignment.directory}`")

    def raise_failure(self) -> None:
        """Raise what keeps the sweep from going on, if anything does."""
        if failure := self._searcher.failure or self._failure:
            raise failure

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        """End the sweep where it cannot go on, and propose nothing more once the time is up."""
        self.raise_failure()
        self._mind_the_time()

    def _mind_the_time(self) -> None:
        if self._minutes is not None and self._spent() > self._minutes * 60:
            self._searcher.close()


class RemoteWorker:
    """A `LastWorker` in a process of its own on the cluster, with a trial's resources.

    Raises:
        ChronotuneError: By its methods, beside what they raise: it died twice, with its node or for want of memory.
    """

    def __init__(self, assignment: Assignment, threads: int) -> None:
        self._assignment, self._threads = assignment, threads
        self._handle = self._begun()

    def export(
        self, number: int, point: Hyperparameters, windows_seen: int, folder: Path, seed: int | None = None
    ) -> None:
        """`Worker.export`, there."""
        self._asked("export", number, point, windows_seen, folder, seed)

    def export_best(self, record: TrialRecord, folder: Path) -> None:
        """`LastWorker.export_best`, there."""
        self._asked("export_best", record, folder)

    def refit(self, record: TrialRecord, folder: Path) -> Mapping[str, Any]:
        """`LastWorker.refit`, there."""
        course: Mapping[str, Any] = self._asked("refit", record, folder)
        return course

    def predict(
        self,
        preset: ModelPreset,
        panel: Panel,
        windows: Sequence[Window],
        context_length: int,
        covariates: Sequence[str],
    ) -> FloatArray:
        """`Worker.predict`, there."""
        forecasts: FloatArray = self._asked("predict", preset, panel, windows, context_length, covariates)
        return forecasts

    def _begun(self) -> Any:
        profile = self._assignment.recipe.cluster
        remote = ray.remote(num_cpus=profile.cpus_per_trial, num_gpus=gpus_per_trial(profile))(LastWorker)
        return remote.remote(self._assignment, self._threads)

    def _asked(self, method: str, *arguments: Any) -> Any:
        """What a method returns there; when its process is lost, a new one is asked once more."""
        try:
            return _get(getattr(self._handle, method).remote(*arguments))
        except ray.exceptions.RayActorError as error:
            log.warning("the worker that writes and evaluates the winner died; another takes over: %s", _line(error))
            self._handle = self._begun()
        try:
            return _get(getattr(self._handle, method).remote(*arguments))
        except ray.exceptions.RayActorError as error:
            raise ChronotuneError(
                f"a worker must write and evaluate the winner, but two have died: {_line(error)}. "
                f"See to the memory of the nodes, then `chronotune resume {self._assignment.directory}`"
            ) from error


def _line(error: ray.exceptions.RayActorError) -> str:
    """One line of an error, as Ray's are long: the first, or of a constructor's traceback the last, its cause."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1 if error.actor_init_failed else 0]


def _get(reference: Any) -> Any:
    """What a remote call returned, or the error that it raised, without the traceback of the other process."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ChronotuneError):
            raise error.cause from None
        raise
