"""Build a sweep and run it: read the data, open the study, let Ray Tune drive, name the winner, evaluate it.

Ray Tune's own checkpointing and restore are not used: the study is the sweep, and to resume is to read it.
"""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from chronotune import __version__
from chronotune.challenger import settle
from chronotune.cluster import connected, preflight, slots, threads_of_one_node
from chronotune.config.load import dump_recipe, load_recipe
from chronotune.config.recipe import Recipe, stored
from chronotune.contenders import BEST
from chronotune.data.describe import describe
from chronotune.data.panel import TrialData
from chronotune.data.prepare import Dataset, load, trial_data
from chronotune.endings import halting_when_unwritable, terminated_like_interrupted
from chronotune.errors import ChronotuneError, InputError
from chronotune.evaluation import evaluate_sweep
from chronotune.export import WEIGHTS, pinned, write_winner
from chronotune.finalists import Standing, any_lost, champion, needed
from chronotune.forecaster import locate
from chronotune.gauges import Gauges
from chronotune.identity import identity, rules, searched_sets
from chronotune.lease import Lease
from chronotune.refit import refit
from chronotune.repeats import run_finalists
from chronotune.search import EXTENDED, FIRST, IMPORTS
from chronotune.start import start, within_space
from chronotune.storage import explained, refuse_taken
from chronotune.stores import below, prune, prune_all_but, store_at
from chronotune.study import Reading, Study, TrialRecord, refuse_changes, winner
from chronotune.tracking import LAST_SECONDS, Mirror, MirrorReport, resolve_uri
from chronotune.trial import Assignment
from chronotune.tuner import (
    MINUTES,
    SPENT,
    RemoteWorker,
    minutes_of,
    run_tuner,
)

log = logging.getLogger("chronotune.sweep")


class Watcher(Protocol):
    """Sees a sweep go by. If it raises, it sees no more of it, and the sweep goes on."""

    def began(self, directory: Path, recipe: Recipe, dataset: Dataset, reading: Reading) -> None:
        """The sweep's folder exists, its data is sound; `reading` is what earlier drivers have done."""

    def update(self, reading: Reading) -> None:
        """Something was recorded."""

    def ended(self, directory: Path, reading: Reading) -> None:
        """The sweep has ended, in whatever way."""

    def registered(self, reading: Reading, mirrored: MirrorReport) -> None:
        """MLflow has what it took of the ended sweep, with the winner's version in its registry if it got one."""


def run_sweep(recipe: Recipe, directory: str | Path | None = None, watcher: Watcher | None = None) -> Path:
    """Run a sweep from its beginning.

    Args:
        recipe: What to search, on what, and what it may cost.
        directory: A new folder for the sweep; by default `<recipe>-<time>` in `cluster.sweeps`, or in sweeps/.
        watcher: Sees the progress.

    Returns:
        The sweep's folder.

    Raises:
        InputError: The data, the folder or the cluster cannot serve this recipe; nothing was written.
        ChronotuneError: No trial succeeded.
        KeyboardInterrupt: It was interrupted, and `resume_sweep` can go on.
    """
    directory = Path(directory or new_folder(recipe))
    _refuse_address(directory)
    directory = directory.resolve()
    _refuse_taken(directory)
    dataset = load(recipe)
    locate(recipe.model)
    recipe = _with_its_place(_with_its_store(pinned(recipe)), directory.name)
    data = trial_data(dataset, recipe)
    attributes = _attributes(recipe, dataset, data)
    with connected(recipe.cluster):
        as_shared = preflight(recipe, directory)
        refuse_taken(recipe.storage, directory.name)
        _make(directory)
        with Lease(directory):
            (directory / "recipe.yaml").write_text(dump_recipe(recipe))
            study = Study.create(directory, directory.name, attributes, recipe.storage)
            return _Sweep(directory, as_shared, dataset, data, study, watcher).run()


def new_folder(recipe: Recipe) -> Path:
    """Where a sweep of this recipe goes when nothing else is said."""
    return Path(recipe.cluster.sweeps or "sweeps") / f"{recipe.name}-{datetime.now():%Y%m%d-%H%M%S}"


def _refuse_address(directory: Path) -> None:
    address = str(directory).replace(":/", "://", 1)  # as it was before it became a path
    if re.match(r"[a-z][a-z0-9+.-]+://", address):
        raise InputError(
            f"--dir, cluster.sweeps: a sweep is written into a folder, but {address} is an address. "
            f"Name a folder that this machine mounts; object stores are for cluster.checkpoints"
        )


def _refuse_taken(directory: Path) -> None:
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise InputError(
            f"{directory}: a sweep needs a new folder, but this is none or not empty. "
            f"Choose another, or go on with it: chronotune resume {directory}"
        )


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{directory}: a sweep writes into its folder, but it cannot be made ({error.strerror}). "
            f"Choose another with --dir"
        ) from error


def _with_its_store(recipe: Recipe) -> Recipe:
    """The recipe with MLflow's default store written out, so that a resume elsewhere goes on in the same one.

    Raises:
        InputError: An address of tracking that cannot be meant.
    """
    if not recipe.tracking.enabled or not (uri := resolve_uri(recipe.tracking)).startswith("sqlite:"):
        return recipe  # servers stay as they are: an address may hold a secret
    return recipe.model_copy(update={"tracking": recipe.tracking.model_copy(update={"uri": uri})})


def _with_its_place(recipe: Recipe, name: str) -> Recipe:
    """The recipe with a new place of the sweep's own in `cluster.checkpoints`, where one is named.

    Raises:
        InputError: Something is there already.
        ChronotuneError: The object store does not answer.
    """
    if recipe.cluster.checkpoints is None:
        return recipe
    place = below(recipe.cluster.checkpoints, name)
    if store_at(place).children(""):
        raise InputError(
            f"cluster.checkpoints: a sweep's place must be new, but {place} holds something. "
            f"Choose another name for the sweep with --dir, or remove that"
        )
    return recipe.model_copy(update={"cluster": recipe.cluster.model_copy(update={"checkpoints": place})})


def resume_sweep(
    directory: str | Path, more_trials: int = 0, watcher: Watcher | None = None, more_minutes: float = 0
) -> Path:
    """Go on with a sweep after any end: killed, interrupted, or finished and now extended.

    Args:
        directory: The sweep's folder.
        more_trials: Trials to add to those that were wanted.
        watcher: Sees the progress.
        more_minutes: Wall time to add to `budget.minutes`.

    Returns:
        The sweep's folder.

    Raises:
        InputError: There is no sweep, somebody drives it, its data, model or budget have changed, or it cannot be
            extended like that.
    """
    directory = Path(directory).resolve()
    if not (directory / "recipe.yaml").exists():
        raise InputError(f"{directory}: a sweep's folder holds recipe.yaml, but this one does not. See `chronotune ls`")
    recipe = load_recipe(directory / "recipe.yaml")
    dataset = load(recipe)
    locate(recipe.model)
    if recipe.tracking.enabled:
        resolve_uri(recipe.tracking)  # refused before anything is written
    data = trial_data(dataset, recipe)
    with Lease(directory):
        study = Study.reopen(directory)
        before = stored(study.attribute("recipe"))
        refuse_changes(rules(before), rules(recipe))  # first what has a key: the rest are fingerprints
        refuse_changes(study.attribute("identity"), identity(recipe, dataset, data))
        refuse_changes(searched_sets(before), searched_sets(recipe))
        if (ended := study.attribute("ended")) and not (more_trials or more_minutes or any_lost(study.read())):
            _tell_the_end(directory, recipe, dataset, datetime.fromisoformat(ended))
            return directory
        _refuse_extension(recipe, study, more_trials, more_minutes)
        with connected(recipe.cluster):
            as_shared = preflight(recipe, directory)
            _extend(recipe, study, more_trials, more_minutes)
            return _Sweep(directory, as_shared, dataset, data, study, watcher).run()


def _refuse_extension(recipe: Recipe, study: Study, trials: int, minutes: float) -> None:
    wanted, limit = study.attribute("trials"), minutes_of(recipe, study)
    if trials and within_space(recipe, wanted + trials) <= wanted:
        raise InputError(
            f"--trials: no point is tried twice, but all {wanted} were wanted already. "
            f"Run a new sweep with a wider search space"
        )
    if minutes and limit is None:
        raise InputError("--minutes: adds to budget.minutes, but this sweep has no limit of time. Leave it out")
    if trials and not minutes and limit is not None and (study.attribute(SPENT) or 0) >= limit * 60:
        raise InputError(
            f"--trials: new trials need time, but all of budget.minutes ({limit:g}) is spent. Add some with --minutes"
        )


def _extend(recipe: Recipe, study: Study, trials: int, minutes: float) -> None:
    """Note what is added, the trials last: cut off before that, it is said once more (and adds its minutes twice).

    Patience begins anew: whoever extends a sweep has some.
    """
    study.note("ended", None)  # first: a sweep that was cut off in here is unfinished
    if minutes:
        spent = (study.attribute(SPENT) or 0) / 60  # trials that ran at the end of the time went beyond it
        study.note(MINUTES, max(minutes_of(recipe, study) or 0, spent) + minutes)
    if trials or minutes:
        study.note(EXTENDED, sum(trial.state in ("complete", "pruned") for trial in study.trials))
    wanted: int = study.attribute("trials")
    study.note("trials", max(wanted, within_space(recipe, wanted + trials)))


class _Sweep:
    """One driver's work on a sweep, from the open study to the evaluated winner."""

    def __init__(
        self,
        directory: Path,
        recipe: Recipe,
        dataset: Dataset,
        data: TrialData,
        study: Study,
        watcher: Watcher | None,
    ) -> None:
        self.directory, self.recipe, self.dataset = directory, recipe, dataset
        self.assignment = Assignment(recipe, data, directory, recipe.cluster.checkpoints)
        self.study, self.watcher = study, watcher

    def run(self) -> Path:
        """Search, train the finalists again, then name the winner and evaluate it."""
        reading = self.study.read()
        self._tell("began", self.directory, self.recipe, self.dataset, reading)
        halting = halting_when_unwritable(self.directory)
        mirror = Mirror(self.directory, self.recipe.tracking, read=self.study.shared)
        with explained(self.recipe.storage), terminated_like_interrupted(), halting, mirror:
            fit, whole = partial(slots, self.recipe.cluster), False
            self._gauges = Gauges(self.directory.name, reading, fit, lambda: mirror.report.results)
            try:
                run_tuner(self.study, self.assignment, self._on_record)
                self._refuse_without_winner()
                run_finalists(self.study, self.assignment, self._on_record)
                self._conclude()
                self.study.note("ended", datetime.now(UTC).isoformat(timespec="seconds"))
                whole = True
            finally:
                self._tell("ended", self.directory, self.study.read())
                if not whole:
                    mirror.flush(LAST_SECONDS)  # first: who is told to go has seconds, and the report takes some
                _report(self.directory, self.recipe, self.dataset)
                mirrored = mirror.flush()
                self._gauges.update(self.study.read(), now=True)
                self._tell("registered", self.study.read(), mirrored)
        return self.directory

    def _refuse_without_winner(self) -> None:
        trials = self.study.trials
        if winner(trials) is None:
            reasons = sorted({trial.reason or trial.state for trial in trials})
            raise ChronotuneError(
                f"a sweep needs one trial that reaches its full budget, but of {len(trials)} none did: "
                f"{'; '.join(reasons)}. See `chronotune logs {self.directory} 0`"
            )

    def _conclude(self) -> None:
        """Export the winner, or what validation prefers to it, note it in the study, and only then open the test.

        A refit comes last: nothing may follow from it for the verdict, and when it fails the verdict is there.
        """
        reading = self.study.read()
        final = champion(reading)
        if final is None and reading.finalists:
            log.warning("no training of a finalist reached its full budget; the best trial of the search wins as it is")
        best = final.median if final else reading.winner
        assert best is not None
        worker = RemoteWorker(self.assignment, threads_of_one_node(self.recipe.cluster))
        before = self.study.attribute("winner")
        noted = before if self._is_written(best) else write_winner(worker, self.assignment, best, self.dataset.panel)
        if before != (noted := {**noted, **(_summary(final) if final else {})}):  # another repeat may have ended since
            self.study.note("winner", noted)
        settle(self.directory, self.study, self.assignment, worker, self.dataset.panel)
        to_come = any_lost(reading)  # the next driver trains it, and another may win and be averaged
        keep = self.recipe.checkpoints_at_work if to_come else self.recipe.budget.keep_checkpoints
        prune(self.assignment.store, self.study.trials, keep)
        prune_all_but(self.assignment.store, reading.finalists, needed(reading))
        if not self._is_evaluated():
            evaluate_sweep(self.directory, self.study, self.recipe, self.dataset, worker.predict)
        if self.recipe.finalists.refit:
            _report(self.directory, self.recipe, self.dataset)  # the verdict is there, a training may take long
        refit(self.study, self.assignment, worker, self.dataset.panel)

    def _is_evaluated(self) -> bool:
        """Whether these very weights have been evaluated: to look again would only give luck another chance."""
        evaluation, winner = self.study.attribute("evaluation") or {}, self.study.attribute("winner")
        same = evaluation.get("challenger", BEST) == winner.get("challenger", BEST)
        return bool(same and evaluation.get("sha256") == winner["sha256"])

    def _is_written(self, best: TrialRecord) -> bool:
        """Whether an earlier driver has written this winner: its checkpoint may be gone since."""
        noted, number = self.study.attribute("winner") or {}, best.searched
        same = (noted.get("number"), noted.get("seed")) == (number, best.seed)
        same = same and best.best is not None and noted["score"] == best.best.objective
        return same and (self.directory / "winner" / WEIGHTS).exists()

    def _on_record(self) -> None:
        reading = self.study.read()
        self._tell("update", reading)
        self._gauges.update(reading)

    def _tell(self, event: str, *arguments: Any) -> None:
        if self.watcher is None:
            return
        try:
            getattr(self.watcher, event)(*arguments)
        except (Exception, SystemExit) as error:  # rich exits on a closed pipe; only the record may end a sweep
            self.watcher = None
            log.warning("progress is no longer shown: %r", error)


def _report(directory: Path, recipe: Recipe, dataset: Dataset) -> None:
    """Write report.html, however the sweep ended; that it cannot be written ends no sweep."""
    from chronotune.page import write_report

    try:
        write_report(directory, about=describe(dataset, recipe))
    except Exception as error:
        log.warning("report.html was not written: %r. Try `chronotune report %s`", error, directory)


def _tell_the_end(directory: Path, recipe: Recipe, dataset: Dataset, ended: datetime) -> None:
    """Report and MLflow of a finished sweep, whose driver may have been killed after it noted the end."""
    from chronotune.page import NAME

    report = directory / NAME
    if not report.exists() or report.stat().st_mtime < ended.timestamp():
        _report(directory, recipe, dataset)
    with Mirror(directory, recipe.tracking):
        pass  # it catches up when it is left


def _summary(final: Standing) -> dict[str, Any]:
    """What the study notes of a winner beyond the checkpoint: mean and spread over how many seeds."""
    return {"mean": final.mean, "spread": final.spread, "seeds": len(final.complete)}


def _attributes(recipe: Recipe, dataset: Dataset, data: TrialData) -> dict[str, Any]:
    """What a new study knows of itself."""
    known = identity(recipe, dataset, data)
    begin = start(recipe, known)
    return {
        "recipe": recipe.model_dump(mode="json"),
        "identity": known,
        "trials": within_space(recipe, recipe.budget.trials),
        FIRST: begin.points,
        IMPORTS: begin.imports,
        "said": begin.said,
        "chronotune": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
