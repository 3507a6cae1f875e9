"""Build a sweep and run it: read the data, open the study, let Ray Tune drive, name the winner, evaluate it.

Ray Tune's own checkpointing and restore are not used: the study is the sweep, and to resume is to read it.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from chronotune import __version__
from chronotune.checkpoint import sha256
from chronotune.cluster import connected, preflight, slots
from chronotune.config.load import dump_recipe, load_recipe
from chronotune.config.recipe import Recipe
from chronotune.data.prepare import Dataset, TrialData, load, trial_data
from chronotune.errors import ChronotuneError, InputError
from chronotune.evaluation import evaluate_sweep
from chronotune.export import WEIGHTS, write_winner
from chronotune.lease import Lease
from chronotune.study import Reading, Study, refuse_changes, winner
from chronotune.tracking import Mirror, resolve_uri
from chronotune.trial import Assignment, prune
from chronotune.tuner import RemoteWorker, run_tuner


class Watcher(Protocol):
    """Sees a sweep go by; must not raise."""

    def began(self, directory: Path, recipe: Recipe, dataset: Dataset) -> None:
        """The sweep's folder exists and its data is sound."""

    def update(self, reading: Reading) -> None:
        """Something was recorded."""

    def ended(self, directory: Path, reading: Reading) -> None:
        """The sweep has ended, in whatever way."""


def run_sweep(recipe: Recipe, directory: str | Path | None = None, watcher: Watcher | None = None) -> Path:
    """Run a sweep from its beginning.

    Args:
        recipe: What to search, on what, and what it may cost.
        directory: A new folder for the sweep; by default `sweeps/<recipe>-<time>`.
        watcher: Sees the progress.

    Returns:
        The sweep's folder.

    Raises:
        InputError: The data, the folder or the cluster cannot serve this recipe; nothing was written.
        ChronotuneError: No trial succeeded.
        KeyboardInterrupt: It was interrupted, and `resume_sweep` can go on.
    """
    dataset = load(recipe)
    directory = Path(directory or f"sweeps/{recipe.name}-{datetime.now():%Y%m%d-%H%M%S}").resolve()
    data = trial_data(dataset, recipe)
    if recipe.tracking.enabled:
        resolve_uri(recipe.tracking)  # an address that cannot be meant is refused before anything is written
    with connected(recipe.cluster):
        preflight(recipe)
        if directory.exists() and any(directory.iterdir()):
            raise InputError(
                f"{directory}: a sweep needs a new folder, but this one is not empty. "
                f"Choose another, or `chronotune resume` it"
            )
        directory.mkdir(parents=True, exist_ok=True)
        with Lease(directory):
            (directory / "recipe.yaml").write_text(dump_recipe(recipe))
            study = Study.create(directory, directory.name, _attributes(recipe, dataset, data))
            return _Sweep(directory, recipe, dataset, data, study, watcher).run()


def resume_sweep(directory: str | Path, more_trials: int = 0, watcher: Watcher | None = None) -> Path:
    """Go on with a sweep after any end: killed, interrupted, or finished and now extended.

    Args:
        directory: The sweep's folder.
        more_trials: Trials to add to those that were wanted.
        watcher: Sees the progress.

    Returns:
        The sweep's folder.

    Raises:
        InputError: There is no sweep, somebody drives it, or its data, model or budget have changed.
    """
    directory = Path(directory).resolve()
    if not (directory / "recipe.yaml").exists():
        raise InputError(f"{directory}: a sweep's folder holds recipe.yaml, but this one does not. See `chronotune ls`")
    recipe = load_recipe(directory / "recipe.yaml")
    dataset = load(recipe)
    data = trial_data(dataset, recipe)
    with Lease(directory):
        study = Study.reopen(directory)
        refuse_changes(study.attribute("identity"), _identity(recipe, dataset, data))
        if more_trials:
            study.note("trials", study.attribute("trials") + more_trials)
        with connected(recipe.cluster):
            preflight(recipe)
            return _Sweep(directory, recipe, dataset, data, study, watcher).run()


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
        self.assignment = Assignment(recipe, data, directory)
        self.study, self.watcher = study, watcher

    def run(self) -> Path:
        """Search, then name the winner and evaluate it."""
        self._tell("began", self.directory, self.recipe, self.dataset)
        with Mirror(self.directory, self.recipe.tracking) as mirror:
            self.study.note("ended", None)
            try:
                run_tuner(self.study, self.assignment, self._on_record)
                self._refuse_without_winner()
                self._conclude()
                self.study.note("ended", datetime.now(UTC).isoformat(timespec="seconds"))
            finally:
                self._tell("ended", self.directory, self.study.read())
                mirror.flush()
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
        """Export the winner's weights, write its name into the study, and only then open the test segment."""
        best = winner(self.study.trials)
        assert best is not None
        threads = slots(self.recipe.cluster) * self.recipe.cluster.cpus_per_trial
        worker = RemoteWorker(self.assignment, threads)
        self.study.note("winner", write_winner(worker, self.assignment, best, self.dataset.panel))
        prune(self.directory, self.study.trials, self.recipe.budget.keep_checkpoints)
        evaluate_sweep(self.directory, self.study, self.recipe, self.dataset, worker.predict)

    def _on_record(self) -> None:
        self._tell("update", self.study.read())

    def _tell(self, event: str, *arguments: Any) -> None:
        if self.watcher is not None:
            getattr(self.watcher, event)(*arguments)


def _attributes(recipe: Recipe, dataset: Dataset, data: TrialData) -> dict[str, Any]:
    """What a new study knows of itself."""
    return {
        "recipe": recipe.model_dump(mode="json"),
        "identity": _identity(recipe, dataset, data),
        "trials": recipe.budget.trials,
        "chronotune": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _identity(recipe: Recipe, dataset: Dataset, data: TrialData) -> dict[str, str]:
    """What must not change between the runs of one sweep, as short fingerprints."""
    windows = [[window.series, window.origin] for window in data.validation]
    return {
        "data": dataset.fingerprint,
        "ruler": _fingerprint([windows, data.horizon, recipe.objective, data.scales.tolist()]),
        "model": _fingerprint([recipe.model.name, recipe.model.revision, _weights(recipe)]),
        "budget": _fingerprint([recipe.budget.windows, recipe.rungs, recipe.seed]),
    }


def _weights(recipe: Recipe) -> str:
    folder = Path(recipe.model.weights)
    return sha256(folder / WEIGHTS) if folder.is_dir() else recipe.model.weights


def _fingerprint(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
