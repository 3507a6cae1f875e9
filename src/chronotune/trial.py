"""What one worker does: advance a slice of the budget, score the validation origins, report.

`TrialRun` knows nothing of Ray, so `chronotune train` repeats a trial with it exactly; `FineTuneTrial` is its Ray face.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ray import tune

from chronotune import collector, device, finetune, forecaster, members, metrics
from chronotune.cluster import is_given_up, usable_cpus
from chronotune.config.model import ModelPreset
from chronotune.config.points import some
from chronotune.config.recipe import Recipe, distinct_sets
from chronotune.config.space import Hyperparameters
from chronotune.data.panel import FloatArray, Panel, TrialData, Window
from chronotune.endings import Notice, ToldToGo, ended_when_stuck
from chronotune.errors import ChronotuneError, StorageError
from chronotune.logs import log_file, log_name
from chronotune.meanwhile import meanwhile
from chronotune.memory import pairs
from chronotune.noise import LOSSES
from chronotune.records import BUDGET, OBJECTIVE, ZERO_SHOT
from chronotune.stores import Store, store_at, trial_key
from chronotune.threads import Threads, lent, use_threads
from chronotune.validation import validate

if TYPE_CHECKING:
    import torch
    from chronos.chronos2 import Chronos2Model

log = logging.getLogger("chronotune.trial")

ZERO_SHOT_LENGTHS = 8
"""At most so many context lengths of a range are scored without training; of a choice all are."""


@dataclass(frozen=True)
class Assignment:
    """What all trials of a sweep share. It holds nothing of the test segment."""

    recipe: Recipe
    data: TrialData
    directory: Path
    """The sweep's folder, absolute."""
    checkpoints: str | None = None
    """Where its checkpoints are, if not in its folder: a path, or an address as `stores.connect` takes it."""

    @property
    def store(self) -> Store:
        """Where its checkpoints are."""
        return store_at(self.checkpoints or self.directory / "checkpoints")


class Worker:
    """A process that runs trials one after the other, and keeps the base model between them."""

    def __init__(
        self,
        assignment: Assignment,
        threads: int | None = None,
        neighbours: int = 0,
        lent: Callable[[], int] = lambda: 0,
    ) -> None:
        """Begin with nothing loaded.

        Args:
            assignment: What all trials share.
            threads: Of torch; None: what the cluster profile gives a trial.
            neighbours: Other trials that run on this machine at the same time, and share its memory.
            lent: How many threads a training may use now; what is not more than `threads` is none.
        """
        self.assignment, self.lent = assignment, lent
        self._neighbours = neighbours
        self._threads = threads or assignment.recipe.cluster.cpus_per_trial
        self._base: Chronos2Model | None = None
        self.notice = Notice(is_given_up)

    @property
    def base(self) -> Chronos2Model:
        """The untouched foundation model, loaded on first use; never trained in place."""
        if self._base is None:
            with collector.importing():
                use_threads(self._threads)
                import chronos.chronos2.model  # noqa: F401  (all that loading and training will want)
            device.limit_to_share(_device(), self.share)
            self._base = forecaster.load_model(self.assignment.recipe.model).to(_device())
            collector.settle()
        return self._base

    @property
    def share(self) -> float:
        """Of the device's memory: the trial's fraction of a GPU, or an equal part of the machine's."""
        gpus = self.assignment.recipe.cluster.gpus_per_trial
        shared = gpus if gpus and gpus != "auto" else 1.0
        return min(1.0, shared) if _device().type == "cuda" else 1 / (1 + self._neighbours)

    def export(
        self, number: int, point: Hyperparameters, windows_seen: int, folder: Path, seed: int | None = None
    ) -> None:
        """Write the plain weights of a `TrialRun`'s checkpoint at `windows_seen` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        TrialRun(self, number, point, seed).export(windows_seen, folder)

    def predict(
        self,
        preset: ModelPreset,
        panel: Panel,
        windows: Sequence[Window],
        context_length: int,
        covariates: Sequence[str],
    ) -> FloatArray:
        """Quantile forecasts, shape (windows, EVALUATION_LEVELS, horizon), of the base model or an exported one."""
        asked: dict[str, Any] = {
            "context_length": context_length,
            "horizon": self.assignment.data.horizon,
            "covariates": covariates,
            "levels": metrics.EVALUATION_LEVELS,
        }
        if preset == self.assignment.recipe.model:
            return forecaster.predict_windows(self.base, panel, windows, **asked)
        return members.predict(preset, panel, windows, device=_device(), **asked)

    def score(self, model: Chronos2Model, context_length: int, covariates: str) -> dict[str, float]:
        """Validation metrics of a model, in original units, on the origins that every trial is scored on."""
        return validate(model, self.assignment.recipe, self.assignment.data, context_length, covariates)[0]

    def zero_shot(self) -> list[dict[str, Any]]:
        """The untouched model's validation metrics for the context lengths and every covariate set of the space."""
        recipe = self.assignment.recipe
        lengths = some(recipe.search_space.context_length, ZERO_SHOT_LENGTHS)
        settings = itertools.product(lengths, distinct_sets(recipe))
        return [self._zero_shot(self.base, *setting) for setting in settings]

    def _zero_shot(self, base: Chronos2Model, context_length: int, covariates: str) -> dict[str, Any]:
        began = time.perf_counter()
        scores = self.score(base, context_length, covariates)
        seconds = round(time.perf_counter() - began, 3)
        return {"context_length": context_length, "covariates": covariates, "metrics": scores, "seconds": seconds}


class TrialRun:
    """One configuration on its way from rung to rung, restored from its latest complete checkpoint if it has one."""

    def __init__(self, worker: Worker, number: int, point: Hyperparameters, seed: int | None = None) -> None:
        """Set up, and train nothing yet.

        Args:
            worker: Whose base model is trained.
            number: Of the trial in its study.
            point: What is trained.
            seed: Of a finalist's repeat, which has a study and checkpoints of its own; None: a searched trial, which is
                trained with the recipe's seed.
        """
        self._worker, self._point = worker, point
        self._recipe = worker.assignment.recipe
        self._store, self._trial = worker.assignment.store, trial_key(number, repeat=seed is not None)
        self._best: tuple[float, int] = (math.inf, 0)  # objective and windows seen
        self._seconds = 0.0
        data = worker.assignment.data
        self._threads = Threads(worker._threads, worker.lent, self._recipe.budget.threads or ())
        self._tuner = finetune.FineTuner(
            worker.base,
            data.panel,
            point,
            train_end=data.train_end,
            horizon=data.horizon,
            covariates=self._recipe.data.sets[point.covariates],
            budget_windows=self._recipe.budget.windows,
            rungs=self._recipe.rungs,
            seed=self._recipe.seed if seed is None else seed,
            splits=self._recipe.budget.splits or (),
            available=device.available(_device(), worker.share),
        )

    def results(self) -> Iterator[dict[str, Any]]:
        """Results at the rungs still ahead; the one that the latest checkpoint holds is given again first.

        A result is given only when its checkpoint is complete, and older checkpoints go only when the next result
        is asked for, which is after the last one was recorded.
        """
        if (past := self._restore()) is not None:
            yield past
        for rung in self._recipe.rungs:
            if rung > self._tuner.windows_seen:
                self._prune()
                with self._worker.notice.awaited():  # also while it scores and writes: what was trained is not lost
                    result = self._advance(rung)
                if self._worker.notice():  # the next trial of this worker would pay for it
                    self._leave(0.0)
                yield result

    def export(self, windows_seen: int, folder: Path) -> None:
        """Write the plain weights of the checkpoint at `windows_seen` into `folder`."""
        with self._store.local(self._key(windows_seen)) as saved:
            self._tuner.restore(saved, to_train=False)
        self._tuner.export(folder)

    def _key(self, windows_seen: int) -> str:
        return f"{self._trial}/{windows_seen}"

    def _advance(self, rung: int) -> dict[str, Any]:
        started, busy = time.perf_counter(), device.Busy(self._tuner.device)
        progress = self._tuner.advance(rung, self._is_time_to_go)
        busy_share = busy.share()
        self._threads.rest()
        if self._tuner.windows_seen < rung:
            self._leave(time.perf_counter() - started)
        with meanwhile(partial(self._save, rung)) as told:  # the disk works while the model forecasts
            result = self._score(rung, progress.loss, started)
            told.set_result(result)
        self._best = min(self._best, (result[OBJECTIVE], rung))
        log.info(
            "%d windows, %s %.4f; %s busy: %s",
            *(rung, self._recipe.objective, result[OBJECTIVE], self._tuner.device),
            "unknown" if busy_share is None else f"{busy_share:.0%}",
        )
        return result

    def _score(self, rung: int, loss: float, started: float) -> dict[str, Any]:
        """The result at a rung that training has reached, since `started`."""
        setting = self._point.context_length, self._point.covariates
        scores, losses = validate(self._tuner.model, self._recipe, self._worker.assignment.data, *setting)
        self._seconds += time.perf_counter() - started
        if not math.isfinite(objective := scores[self._recipe.objective]):
            raise ChronotuneError(f"the validation {self._recipe.objective} after {rung} windows is not finite")
        return {
            BUDGET: rung,
            OBJECTIVE: objective,
            "metrics": {**scores, "train_loss": loss},
            "attributes": {
                "seconds": round(self._seconds, 3),
                "steps": self._tuner.steps,
                "device": str(self._tuner.device),
                **self._course,
                "host": socket.gethostname(),
                "checkpoint": self._key(rung),
                LOSSES: losses,
            },
        }

    def _save(self, windows_seen: int, notes: Callable[[], dict[str, Any]]) -> None:
        self._store.save(self._key(windows_seen), lambda folder: self._tuner.save(folder, notes))

    def _is_time_to_go(self) -> bool:
        """Asked before each step, which gets its threads here."""
        self._threads.before_step(self._tuner.steps, self._tuner.windows_seen)
        return self._worker.notice()

    @property
    def _course(self) -> dict[str, Any]:
        """How steps were computed so far: what a training that repeats this one must be told."""
        return {"splits": [list(p) for p in self._tuner.splits], "threads": [list(p) for p in self._threads.used]}

    def _leave(self, seconds: float) -> NoReturn:
        """Between two rungs, as this machine is taken away: keep what has been done, for another to go on."""
        seen, notes = self._tuner.windows_seen, {"seconds": round(self._seconds + seconds, 3), **self._course}
        if seen and seen not in self._store.complete(self._trial):
            self._save(seen, lambda: {"attributes": notes})
        log.warning("told to go: %d windows are kept, and another worker goes on from there", seen)
        raise ToldToGo

    def _restore(self) -> dict[str, Any] | None:
        """Go on from the latest checkpoint that is whole; its result, or None when it has none or there is none."""
        for windows_seen in reversed(saved := self._store.complete(self._trial)):
            try:
                with self._store.local(self._key(windows_seen)) as folder:
                    result = dict(self._tuner.restore(folder))
            except StorageError:  # it is whole, as far as anybody knows
                raise
            except ChronotuneError as error:
                log.warning("%d is skipped: %s", windows_seen, error)
                continue
            self._seconds = result["attributes"]["seconds"]
            self._threads.used = pairs(result["attributes"], "threads")
            self._best = min(map(self._score_at, saved))
            log.info("goes on from %d windows", self._tuner.windows_seen)
            return result if OBJECTIVE in result else None  # between two rungs: earlier ones were reported
        return None

    def _prune(self) -> None:
        """Keep the best checkpoint and the latest."""
        for windows_seen in self._store.complete(self._trial):
            if windows_seen not in (self._best[1], self._tuner.windows_seen):
                self._store.remove(self._key(windows_seen))

    def _score_at(self, windows_seen: int) -> tuple[float, int]:
        """Objective and windows seen; a damaged checkpoint is never the best."""
        try:
            objective = self._store.meta(self._key(windows_seen)).get("notes", {}).get(OBJECTIVE, math.inf)
        except StorageError:
            raise
        except ChronotuneError:
            objective = math.inf
        return float(objective), windows_seen


class FineTuneTrial(tune.Trainable):  # type: ignore[misc]  # ray ships no types
    """The Ray Tune trainable. Light to set up and to reset, so that a reused worker is never idle."""

    _results: Iterator[dict[str, Any]] | None

    def setup(self, config: dict[str, Any], assignment: Assignment | None = None) -> None:
        """Remember what to do; the model is loaded in the first step."""
        assert assignment is not None
        told = partial(lent, assignment.directory)
        self._worker = Worker(assignment, neighbours=_neighbours(assignment.recipe), lent=told)
        self._config, self._results = config, None
        self._worker.notice.listen()

    def __repr__(self) -> str:
        """What the Ray dashboard calls this actor; it is asked once, and the actor runs other trials later."""
        return f"{self._worker.assignment.directory.name} worker"

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another configuration in the same process, which first frees what the last one held."""
        self._config, self._results = new_config, None
        device.release()
        return True

    def step(self) -> dict[str, Any]:
        """The next result, or why there is none: an exception here would only make Ray try the same again."""
        number = self._config.get("number")
        name = log_name(number, repeat="seed" in self._config)
        with (
            log_file(self._worker.assignment.directory, name) as file,
            ended_when_stuck(self._worker.assignment.recipe.budget.stuck_minutes, file),
        ):
            try:
                if number is None:
                    return {ZERO_SHOT: self._worker.zero_shot(), BUDGET: 0, "done": True}
                result = next(self._run())
            except ToldToGo:
                os._exit(1)  # Ray starts the trial again elsewhere
            except Exception as error:  # whatever went wrong, the study gets its reason
                log.exception("%s failed", name)
                return {"failed": _reason(error), "halts": isinstance(error, StorageError), "done": True}
        done = result[BUDGET] >= self._worker.assignment.recipe.rungs[-1]
        return {**result, "number": number, "done": done}

    def _title(self) -> str:
        """What runs now, for the dashboard's pages of this actor."""
        number, seed = self._config["number"], self._config.get("seed")
        return f"trial {number}" if seed is None else f"finalist {number}, seed {seed}"

    def _run(self) -> Iterator[dict[str, Any]]:
        if self._results is None:
            log.info("runs in process %d on %s", os.getpid(), socket.gethostname())
            name = self._worker.assignment.directory.name
            print(f"{name}: {self._title()} begins", file=sys.stderr, flush=True)  # noqa: T201  (the dashboard's page of it)
            point = Hyperparameters(**self._config["hyperparameters"])
            run = TrialRun(self._worker, self._config["number"], point, self._config.get("seed"))
            self._results = run.results()
        return self._results


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if isinstance(error, ChronotuneError) and text else f"{type(error).__name__}: {' '.join(text[:1])}"


def _neighbours(recipe: Recipe) -> int:
    """Other trials that may run on this machine at the same time, by the cores that it may use and the profile."""
    profile = recipe.cluster
    fit = usable_cpus() // profile.cpus_per_trial
    return max(1, min(fit, profile.max_concurrent or fit)) - 1


def _device() -> torch.device:
    """The GPU that Ray has shown to this process, if any."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
