"""Optuna's search and ASHA, as Ray Tune sees them.

Asking is a pure function of (seed, trial number, contents of the study; of a trial drawn ahead those when the trial
before it began), so with one worker a resumed sweep proposes what an unbroken one would have.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from chronotune.config.points import Values, size
from chronotune.config.recipe import Recipe
from chronotune.errors import WORKER_LOST
from chronotune.proposal import Proposal
from chronotune.records import BUDGET, OBJECTIVE, ZERO_SHOT
from chronotune.sampler import draw, grid_in_order, imported, is_ahead, sampler, seed_of, shown
from chronotune.study import Study, TrialRecord

FIRST = "first"
"""Attribute of the study: the points that its first trials take, one a trial, as `start.Start.points` lists them."""

IMPORTS = "imports"
"""Attribute of the study: trials of earlier sweeps that only the sampler sees, as `start.Start.imports` lists them."""

EXTENDED = "extended"
"""Attribute of the study: how many trials had ended when it was last extended; patience begins anew there."""

MAX_WORKER_DEATHS = 2
"""How often a trial is started again from its last checkpoint when its worker dies."""

CUT_OFF = "its driver died before all its parameters were written"
"""Reason of a trial without a point."""

LAST = "last"
"""Attribute of a result: whether its trial ended with it, as the scheduler decided or its budget did."""


def result_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a result, or of Ray Tune's report of it, that `study.Result` holds."""
    return {key: report[key] for key in (BUDGET, OBJECTIVE, "metrics", "attributes")}


class _NewestFirst:
    """Gives a worker that is free to the trial that was proposed for it.

    Ray Tune would give it to the trial that has waited longest, and end the worker that is starting for that one: where
    trials end sooner than workers start, those never come up, and slots stay empty for as long as the sweep lasts.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The newest trial that waits; None when none does."""
        return next((one for one in reversed(tune_controller.get_trials()) if one.status == Trial.PENDING), None)


class InTurn(_NewestFirst, FIFOScheduler):  # type: ignore[misc]  # ray ships no types
    """Stops nothing early."""


class Halving(_NewestFirst, ASHAScheduler):  # type: ignore[misc]  # ray ships no types
    """ASHA, the stopping variant, which knows trials by their numbers in the study: none enters a rung twice.

    Ray Tune hands a trial whose worker died out again under another id, and its last result comes once more.
    """

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """As ASHA's."""
        super().on_trial_add(tune_controller, _numbered(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """As ASHA's; one that is in its rung already goes on."""
        return str(super().on_trial_result(tune_controller, _numbered(trial), result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """As ASHA's."""
        super().on_trial_complete(tune_controller, _numbered(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """As ASHA's."""
        super().on_trial_remove(tune_controller, _numbered(trial))


def _numbered(trial: Any) -> SimpleNamespace:
    """What ASHA asks a trial for; the zero-shot scores have no number."""
    return SimpleNamespace(trial_id=trial.config.get("number", trial.trial_id))


def scheduler(recipe: Recipe) -> TrialScheduler:
    """ASHA over windows seen, at the recipe's rungs; or none."""
    if recipe.early_stopping.kind == "none":
        return InTurn()
    return Halving(
        time_attr=BUDGET,
        metric=OBJECTIVE,
        mode="min",
        max_t=recipe.rungs[-1],
        grace_period=recipe.rungs[0],
        reduction_factor=recipe.early_stopping.reduction,
    )


def remember(asha: TrialScheduler, record: TrialRecord) -> str:
    """Enter a trial's past results into the scheduler's rungs; its decision on the last of them."""
    trial = SimpleNamespace(trial_id=f"past-{record.number}", config={"number": record.number})
    decision = TrialScheduler.CONTINUE
    asha.on_trial_add(None, trial)
    for result in record.results:
        decision = asha.on_trial_result(None, trial, {BUDGET: result.windows_seen, OBJECTIVE: result.objective})
    return str(decision)


def was_stopped(record: TrialRecord) -> bool:
    """Whether the scheduler stopped a trial whose end the driver did not live to tell: its last result says so."""
    return bool(record.results and record.results[-1].attributes.get(LAST))


def unimproved(trials: Sequence[TrialRecord], since: int = 0) -> int:
    """How many trials have ended since the best of full budget last improved; 0 while there is none.

    Args:
        trials: In any state; those that failed, and so say nothing, do not count.
        since: Only those count that ended after this many others.
    """
    ended = [trial for trial in trials if trial.state in ("complete", "pruned") and trial.best and trial.ended]
    ended.sort(key=lambda trial: (trial.ended, trial.number))
    best, last = math.inf, None
    for position, trial in enumerate(ended, start=1):
        if trial.state == "complete" and trial.best and trial.best.objective < best:
            best, last = trial.best.objective, position
    return 0 if last is None else len(ended) - max(last, since)


class RecordedSearcher(Searcher):  # type: ignore[misc]  # ray ships no types
    """Tells a study how its trials ended. Which are handed to Ray Tune, its children decide."""

    def __init__(self, study: Study, full_budget: int) -> None:
        super().__init__(metric=OBJECTIVE, mode="min")
        self._study, self._full_budget = study, full_budget
        self._numbers: dict[str, int | None] = {}  # Tune's id -> trial number; None: the zero-shot scores
        self._unfinished: list[int] = []  # trials to go on with
        self._deaths, self._waiting = Counter[int](), set[int]()  # waiting: to start again after a death
        self.failure: Exception | None = None
        """Why the study could not be told of an end: Ray Tune would take it for a failure of the trial."""

    def close(self) -> None:
        """Propose nothing new; what runs, or once ran, goes on."""

    def wants_more(self) -> bool:
        """Whether the study wants more trials than it has."""
        raise NotImplementedError

    def more_may_come(self) -> bool:
        """Whether another trial may be handed out."""
        return self.wants_more()

    @property
    def running(self) -> int:
        """How many are handed out and have not ended."""
        return len(self._numbers)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how a trial ended."""
        number = self._numbers.pop(trial_id)
        if number is None:
            return
        try:
            with self._study.together():
                self._tell(number, result, error)
        except Exception as failure:
            self.failure = self.failure or failure

    def on_worker_death(self, trial_id: str) -> None:
        """The worker of a trial died; it is about to start in another."""
        if (number := self._numbers.get(trial_id)) is not None:
            self._deaths[number] += 1
            self._waiting.add(number)

    def on_trial_start(self, trial_id: str) -> None:
        """A trial has a worker."""
        if (number := self._numbers.get(trial_id)) is not None:
            self._waiting.discard(number)

    @property
    def has_unfinished(self) -> bool:
        """Whether a trial is left to go on with."""
        return bool(self._unfinished)

    def _tell(self, number: int, result: Mapping[str, Any] | None, error: bool) -> None:
        if error and number in self._waiting and self._deaths[number] <= MAX_WORKER_DEATHS:
            self._unfinished.append(number)  # it came to a worker that had died idle: Tune tells of that, and gives up
        elif error:
            self._study.fail(number, WORKER_LOST)
        elif result and result.get("halts"):
            return  # no fault of the trial's: it stays running, and the next driver goes on with it
        elif result and (reason := result.get("failed")):
            self._study.fail(number, reason)
        else:
            self._study.finish(number, self._full_budget)

    def __getstate__(self) -> dict[str, Any]:
        """Empty: Tune pickles its searcher into a folder that nobody reads, and a study cannot be pickled."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the study is the record."""


class StudySearcher(RecordedSearcher):
    """Hands the study's trials to Ray Tune.

    The zero-shot model is scored first (it is no trial of the study), then trials that an earlier driver left
    running go on, then new ones are asked for until `wanted` exist.
    """

    def __init__(
        self, study: Study, recipe: Recipe, asha: TrialScheduler, *, wanted: int, slots: Callable[[], int]
    ) -> None:
        super().__init__(study, recipe.rungs[-1])
        self._recipe = recipe
        self._wanted, self._slots = wanted, slots
        self._draw = draw(recipe.search_space)
        self._unfinished += [trial.number for trial in study.trials if trial.state == "running"]
        self._zero_shot_due = study.attribute(ZERO_SHOT) is None
        self._first: list[Values] = [point["values"] for point in study.attribute(FIRST) or ()]
        finite = size(recipe.search_space) is not None
        self._points = grid_in_order(recipe.search_space, recipe.seed, self._first) if finite else []
        if recipe.search.sampler == "grid":
            self._first = list(self._points)
        self._wanted = min(wanted, len(self._points) or wanted)
        self._imports = imported(study.attribute(IMPORTS) or (), recipe.search_space)
        self._since: int = study.attribute(EXTENDED) or 0
        self._closed = False
        for trial in study.trials:  # also one that has to wait for a slot: the others are judged beside it
            remember(asha, trial)

    def close(self) -> None:
        """Propose nothing new; what runs, or once ran, goes on."""
        self._closed = True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration; None to be asked again later; FINISHED when nothing will come any more."""
        if len(self._numbers) >= self._slots():
            return None
        if self._zero_shot_due:
            self._zero_shot_due = False
            self._numbers[trial_id] = None
            return {ZERO_SHOT: True}
        record = self._next()
        if record is None:
            # out of patience, but what still runs may improve on the best
            return None if self._numbers and self._has_room() else Searcher.FINISHED
        assert record.hyperparameters is not None
        self._numbers[trial_id] = record.number
        return {"number": record.number, "hyperparameters": record.hyperparameters.model_dump()}

    def _next(self) -> TrialRecord | None:
        while self._unfinished:
            record = self._study.trial(self._unfinished.pop(0))
            if record.hyperparameters is None:  # of a version that wrote a trial piece by piece
                self._study.fail(record.number, CUT_OFF)
                continue
            at_the_end = record.windows_seen >= self._recipe.rungs[-1]
            if not at_the_end and not was_stopped(record):
                return record
            self._study.finish(record.number, self._recipe.rungs[-1])
        if not self.wants_more():
            return None
        record = self._study.ask(self._how(len(self._study.trials)))
        if self._has_room():
            self._study.prepare(self._how(record.number + 1))
        return record

    def wants_more(self) -> bool:
        """Whether the sweep wants another trial, and has the time and the patience."""
        return self._has_room() and not self._is_out_of_patience()

    def more_may_come(self) -> bool:
        """Also without patience: what still runs may improve on the best."""
        return self._zero_shot_due or bool(self._unfinished) or self._has_room()

    def _has_room(self) -> bool:
        return len(self._study.trials) < self._wanted and not self._closed

    def _is_out_of_patience(self) -> bool:
        patience = self._recipe.budget.patience
        return patience is not None and unimproved(self._study.trials, self._since) >= patience

    @property
    def stopped_by(self) -> str | None:
        """Why no more trials come although more were wanted."""
        if len(self._study.trials) >= self._wanted:
            return None
        if self._closed:
            return "budget.minutes is spent"
        return f"the best has not improved for {self._recipe.budget.patience} trials (budget.patience)"

    def _how(self, number: int) -> Proposal:
        """How trial `number` is drawn."""
        recipe, beside = self._recipe, len(self._imports)
        by = sampler(recipe, number, beside)
        return Proposal(
            by,
            self._draw,
            given=self._first[number] if number < len(self._first) else {},
            beside=self._imports,
            points=self._points,
            shown=shown(by, recipe),
            seed=seed_of(recipe, number),
            ahead=is_ahead(recipe, number, beside),
        )
