"""Readings of sweeps: leaderboard, finalists and learning curves, logs, and what lies in a folder."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronotune.errors import ChronotuneError, InputError, StorageError
from chronotune.finalists import Standing, standings
from chronotune.gate import is_shipped
from chronotune.lease import is_alive, read_holder
from chronotune.metrics import without_nan
from chronotune.noise import RungNoise, at_rungs
from chronotune.records import FINALISTS
from chronotune.stores import store_at
from chronotune.study import JOURNAL, Reading, TrialRecord, is_sweep, read

if TYPE_CHECKING:
    import polars as pl

POINT = ("mode", "learning_rate", "windows", "accumulation", "context_length", "covariates", "lora_rank")
"""Hyperparameters in the order of display."""


def leaderboard(sweep: str | Path | Reading, driven: bool = False) -> pl.DataFrame:
    """Zero-shot first, then all trials from best to worst; those without a result come last.

    Args:
        sweep: A sweep's folder, or a reading of its study.
        driven: Of a reading: whether somebody drives its sweep. In a folder that is looked up.

    Returns:
        Columns: trial (null for zero-shot), state (of a trial that has not ended: running, or interrupted when nobody
        drives the sweep), score (the objective's best value on validation), gain (relative to zero-shot, positive is
        better), windows_seen (of the best score), steps and seconds (of the whole trial), and the hyperparameters.
    """
    import polars as pl

    if isinstance(sweep, Reading):
        reading = sweep
    else:
        driven, reading = is_driven(Path(sweep)), read(Path(sweep))
    zero_shot, reference = reading.zero_shot, _reference(reading)
    trials = sorted(reading.trials, key=lambda trial: (trial.best is None, _score(trial) or 0.0, trial.number))
    rows = [_zero_shot_row(zero_shot, reference)] if zero_shot else []
    rows += [_trial_row(trial, reference, driven) for trial in trials]
    return pl.DataFrame(rows, schema=_schema())


def _state(trial: TrialRecord, driven: bool) -> str:
    return _unended(driven) if trial.state == "running" else trial.state


def _unended(driven: bool) -> str:
    return "running" if driven else "interrupted"


def finalists(reading: Reading, driven: bool = False) -> list[dict[str, Any]]:
    """The trials that were trained again with other seeds, from best to worst; empty when there are none.

    Args:
        reading: Of a sweep's study.
        driven: Whether somebody drives the sweep.

    Returns:
        For each: trial, state (running or interrupted, complete, or failed when a repeat failed), mean and spread
        (sample standard deviation) of the objective over its seeds, gain (of the mean, relative to zero-shot), searched
        (the score that it was chosen for, with the search's seed), and the repeats: number, seed, state, score,
        windows_seen (of the score), reason (of a failure).
    """
    return [_finalist_row(standing, _reference(reading), driven) for standing in standings(reading)]


def _reference(reading: Reading) -> float | None:
    """The objective of the untouched model in its best setting."""
    best = reading.zero_shot
    return float(best["metrics"][reading.attributes["recipe"]["objective"]]) if best else None


def _finalist_row(standing: Standing, reference: float | None, driven: bool) -> dict[str, Any]:
    return {
        "trial": standing.trial.number,
        "state": _unended(driven) if not standing.ended else "failed" if standing.failures else "complete",
        "mean": standing.mean,
        "gain": 1 - standing.mean / reference if standing.mean is not None and reference else None,
        "spread": standing.spread,
        "searched": _score(standing.trial),
        "repeats": [
            {
                "number": repeat.number,
                "seed": repeat.seed,
                "state": _state(repeat, driven),
                "score": _score(repeat),
                "windows_seen": repeat.best.windows_seen if repeat.best else 0,
                "reason": repeat.reason,
            }
            for repeat in standing.repeats
        ],
    }


def curves(reading: Reading) -> pl.DataFrame:
    """Every result of every trial.

    Returns:
        Columns: trial, windows_seen, objective, then one column a metric.
    """
    import polars as pl

    rows = [
        {"trial": trial.number, "windows_seen": r.windows_seen, "objective": r.objective, **r.metrics}
        for trial in reading.trials
        for r in trial.results
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _schema() -> dict[str, Any]:
    import polars as pl

    return {
        "trial": pl.Int64,
        "state": pl.String,
        "score": pl.Float64,
        "gain": pl.Float64,
        "windows_seen": pl.Int64,
        "steps": pl.Int64,
        "seconds": pl.Float64,
        "mode": pl.String,
        "learning_rate": pl.Float64,
        "windows": pl.Int64,
        "accumulation": pl.Int64,
        "context_length": pl.Int64,
        "covariates": pl.String,
        "lora_rank": pl.Int64,
        "reason": pl.String,
    }


def _zero_shot_row(setting: Any, reference: float | None) -> dict[str, Any]:
    return {
        "state": "zero-shot",
        "score": reference,
        "gain": 0.0,
        "windows_seen": 0,
        "steps": 0,
        "context_length": setting["context_length"],
        "covariates": setting["covariates"],
    }


def _trial_row(trial: TrialRecord, reference: float | None, driven: bool) -> dict[str, Any]:
    score, point = _score(trial), trial.hyperparameters
    last = trial.results[-1].attributes if trial.results else {}
    return {
        "trial": trial.number,
        "state": _state(trial, driven),
        "score": score,
        "gain": 1 - score / reference if score is not None and reference else None,
        "windows_seen": trial.best.windows_seen if trial.best else 0,
        "steps": last.get("steps"),
        "seconds": last.get("seconds"),
        **({name: getattr(point, name) for name in POINT} if point else {}),
        "reason": trial.reason,
    }


def _score(trial: TrialRecord) -> float | None:
    return trial.best.objective if trial.best else None


def zero_shot(reading: Reading) -> list[dict[str, Any]]:
    """The untouched model's objective on validation: a row for each `context`, and in it `covariates NAME` by set."""
    objective, rows = reading.attributes["recipe"]["objective"], dict[int, dict[str, Any]]()
    for setting in reading.attributes.get("zero_shot") or ():
        row = rows.setdefault(setting["context_length"], {"context": setting["context_length"]})
        row[f"covariates {setting['covariates']}"] = setting["metrics"][objective]
    return list(rows.values())


def noise(reading: Reading) -> list[RungNoise]:
    """How far apart the trials must be at each rung to mean something; empty when nothing is known of it."""
    return at_rungs(reading.trials, reading.attributes["recipe"]["objective"])


def as_dict(reading: Reading, driven: bool = False) -> dict[str, Any]:
    """Everything that a script may want of a sweep, `driven` or not, as JSON values (NaN becomes null)."""
    return {
        "name": reading.name,
        "state": state_of(reading, driven),
        "recipe": reading.attributes["recipe"],
        "leaderboard": without_nan(leaderboard(reading, driven).to_dicts()),
        "zero_shot": without_nan(reading.attributes.get("zero_shot") or []),
        "results": without_nan(curves(reading).to_dicts()),
        "finalists": without_nan(finalists(reading, driven)),
        "noise": without_nan([asdict(rung) for rung in noise(reading)]),
        "winner": reading.attributes.get("winner"),
        "evaluation": without_nan(reading.evaluation),
    }


def sweeps(root: Path) -> list[dict[str, Any]]:
    """The sweeps in a folder, oldest first: name, path, state (running, finished, interrupted), trials, score.

    The score is the best trial's; once finalists have decided, the winner's mean over its seeds. A sweep that cannot
    be read is `unreadable`, which its text explains; a folder that this user may not enter is passed over.
    """
    return [_about(path) for path in sorted(root.glob("*")) if os.access(path, os.X_OK) and is_sweep(path)]


def is_driven(directory: Path) -> bool:
    """Whether a process drives the sweep now."""
    holder = read_holder(directory)
    return holder is not None and is_alive(holder)


def state_of(reading: Reading, driven: bool) -> str:
    """Of a sweep: running, finished, or interrupted, so that `resume` goes on."""
    return "running" if driven else "finished" if reading.attributes.get("ended") else "interrupted"


def _about(directory: Path) -> dict[str, Any]:
    about: dict[str, Any] = {"name": directory.name, "path": str(directory)}
    driven = is_driven(directory)  # before the study: a sweep that ends in between is not one that was cut off
    try:
        reading = read(directory)
    except (ChronotuneError, OSError) as error:
        return {**about, "state": "unreadable", "about": str(error)}
    best, state = reading.winner, state_of(reading, driven)
    done = sum(trial.state != "running" for trial in reading.trials)
    mean = (reading.attributes.get("winner") or {}).get("mean")  # over seeds: the search's best score is luckier
    score = mean or (_score(best) if best else None)
    text = f"{state}, {done}/{reading.attributes['trials']} trials"
    if state != "finished" and (chosen := reading.attributes.get(FINALISTS)):
        again = sum(repeat.state != "running" for repeat in reading.finalists)
        text += f", {again}/{len(chosen['trials']) * len(chosen['seeds'])} trainings of finalists"
    if score is not None:
        text += f", best {reading.attributes['recipe']['objective']} {score:.4f}"
    if verdict := (reading.evaluation or {}).get("verdict"):
        text += f": {verdict['decision']}"
    return {**about, "state": state, "trials": done, "score": score, "about": text}


def log_of(directory: Path, number: int, seed: int | None = None) -> str:
    """A trial's log, and the reason when it failed.

    Args:
        directory: The sweep's folder.
        number: Of the trial.
        seed: Of its training as a finalist; None: the search's.

    Raises:
        InputError: There is no such sweep, trial or finalist.
    """
    reading = read(directory)
    if not reading.trials:
        raise InputError(f"{directory}: no trial has begun yet, but {number} was asked for. Look again in a moment")
    if number >= len(reading.trials):
        raise InputError(f"{directory}: trials are numbered 0 to {len(reading.trials) - 1}, but {number} was asked for")
    record, name = reading.trials[number], str(number)
    if seed is not None:
        record = _repeat(directory, reading, number, seed)
        name = f"{FINALISTS}/{record.number}"
    path = directory / "logs" / f"{name}.log"
    text = path.read_text() if path.exists() else ""
    reason = record.reason
    return text + (f"failed: {reason}\n" if reason else "") or f"trial {number} has logged nothing\n"


def _repeat(directory: Path, reading: Reading, number: int, seed: int) -> TrialRecord:
    found = {(repeat.of, repeat.seed): repeat for repeat in reading.finalists}
    if (number, seed) not in found:
        known = ", ".join(f"{of} with {own}" for of, own in found) or "none"
        raise InputError(
            f"{directory}: trial {number} was not trained again with seed {seed}. Trials and their seeds: {known}"
        )
    return found[number, seed]


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def remove(directory: Path, *, only_checkpoints: bool = False) -> None:
    """Remove a sweep's folder, or only its checkpoints.

    Raises:
        InputError: It is no sweep, or somebody drives it.
        ChronotuneError: Its checkpoints are elsewhere and cannot be removed; then the folder stays too.
    """
    refuse_removal(directory)
    if place := elsewhere(directory):
        _empty(place)
    target = directory / "checkpoints" if only_checkpoints else directory
    if target.exists():
        shutil.rmtree(target)


def _empty(place: str) -> None:
    store = store_at(place)
    store.remove("")
    if store.children(""):
        raise ChronotuneError(
            f"{place}: a sweep's checkpoints go with it, but some cannot be removed. Check rights, and do it again"
        )


def elsewhere(directory: Path) -> str | None:
    """Where a sweep's checkpoints are, if not in its folder."""
    try:
        recipe = read(directory).attributes["recipe"]
    except InputError:  # never begun
        return None
    place: str | None = recipe["cluster"].get("checkpoints")
    return place


def registered(directory: Path) -> str | None:
    """A warning where versions of a registered model may need the weights in this sweep's folder, else None."""
    try:
        reading = read(directory)
    except InputError:  # never begun
        return None
    tracking = reading.attributes["recipe"]["tracking"]
    name, uploaded = tracking.get("registry"), tracking.get("upload_weights")
    if not name or uploaded or not tracking.get("enabled", True) or not is_shipped(reading.evaluation):
        return None
    return (
        f"versions of {name!r} in MLflow load the weights that lie in {directory / 'winner'}; without them, or with "
        f"another winner there, these versions load no more. Export the model first: load_model takes its folder "
        f"as model_config={{'weights': FOLDER}}"
    )


def refuse_removal(directory: Path) -> None:
    """Do nothing when `remove` may remove this folder.

    Raises:
        InputError: It is no sweep, or somebody drives it.
        StorageError: Its journal is damaged, and so where its checkpoints are is not known.
    """
    if not is_sweep(directory):
        raise InputError(
            f"{directory}: only a sweep is removed, but this folder holds no {JOURNAL}. See `chronotune ls`"
        )
    holder = read_holder(directory)
    if holder is not None and is_alive(holder):
        raise InputError(f"{directory}: process {holder['pid']} on {holder['host']} drives this sweep. Stop it first")
    try:
        elsewhere(directory)
    except StorageError as error:
        remedy = "To be rid of the sweep, delete its folder, and what cluster.checkpoints in its recipe.yaml names"
        raise StorageError(f"{error}. {remedy}") from error
