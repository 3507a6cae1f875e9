"""Readings of sweeps: leaderboard and learning curves as polars frames, logs, and what lies in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronotune.errors import ChronotuneError, InputError
from chronotune.lease import is_alive, read_holder
from chronotune.metrics import without_nan
from chronotune.study import JOURNAL, Reading, TrialRecord, read

if TYPE_CHECKING:
    import polars as pl

POINT = ("mode", "learning_rate", "windows", "accumulation", "context_length", "covariates", "lora_rank")
"""Hyperparameters in the order of display."""


def leaderboard(sweep: str | Path | Reading) -> pl.DataFrame:
    """Zero-shot first, then all trials from best to worst; those without a result come last.

    Args:
        sweep: A sweep's folder, or a reading of its study.

    Returns:
        Columns: trial (null for zero-shot), state, score (the objective's best value on validation), gain (relative
        to zero-shot, positive is better), windows_seen (of the best score), steps and seconds (of the whole trial),
        and the hyperparameters.
    """
    import polars as pl

    reading = sweep if isinstance(sweep, Reading) else read(Path(sweep))
    zero_shot = reading.zero_shot
    reference = zero_shot["metrics"][reading.attributes["recipe"]["objective"]] if zero_shot else None
    trials = sorted(reading.trials, key=lambda trial: (trial.best is None, _score(trial) or 0.0, trial.number))
    rows = [_zero_shot_row(zero_shot, reference)] if zero_shot else []
    rows += [_trial_row(trial, reference) for trial in trials]
    return pl.DataFrame(rows, schema=_schema())


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


def _trial_row(trial: TrialRecord, reference: float | None) -> dict[str, Any]:
    score, point = _score(trial), trial.hyperparameters
    last = trial.results[-1].attributes if trial.results else {}
    return {
        "trial": trial.number,
        "state": trial.state,
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


def as_dict(reading: Reading) -> dict[str, Any]:
    """Everything that a script may want of a sweep, as JSON values (NaN becomes null)."""
    return {
        "name": reading.name,
        "state": "finished" if reading.attributes.get("ended") else "unfinished",
        "recipe": reading.attributes["recipe"],
        "leaderboard": without_nan(leaderboard(reading).to_dicts()),
        "results": without_nan(curves(reading).to_dicts()),
        "winner": reading.attributes.get("winner"),
        "evaluation": without_nan(reading.attributes.get("evaluation")),
    }


def sweeps(root: Path) -> list[dict[str, Any]]:
    """The sweeps in a folder, oldest first: name, path, state (running, finished, interrupted), trials, best score."""
    found = [journal.parent for journal in sorted(root.glob(f"*/{JOURNAL}"))]
    return [_about(directory) for directory in found]


def _about(directory: Path) -> dict[str, Any]:
    about: dict[str, Any] = {"name": directory.name, "path": str(directory)}
    try:
        reading = read(directory)
    except ChronotuneError as error:
        return {**about, "state": "unreadable", "about": str(error)}
    best, holder = reading.winner, read_holder(directory)
    running = holder is not None and is_alive(holder)
    state = "running" if running else "finished" if reading.attributes.get("ended") else "interrupted"
    done = sum(trial.state != "running" for trial in reading.trials)
    score = _score(best) if best else None
    text = f"{state}, {done}/{reading.attributes['trials']} trials"
    if score is not None:
        text += f", best {reading.attributes['recipe']['objective']} {score:.4f}"
    if verdict := (reading.attributes.get("evaluation") or {}).get("verdict"):
        text += f": {verdict['decision']}"
    return {**about, "state": state, "trials": done, "score": score, "about": text}


def log_of(directory: Path, number: int) -> str:
    """A trial's log, and the reason when it failed.

    Raises:
        InputError: There is no such sweep or trial.
    """
    trials = read(directory).trials
    if number >= len(trials):
        raise InputError(f"{directory}: trials are numbered 0 to {len(trials) - 1}, but {number} was asked for")
    path = directory / "logs" / f"{number}.log"
    text = path.read_text() if path.exists() else ""
    reason = trials[number].reason
    return text + (f"failed: {reason}\n" if reason else "") or f"trial {number} has logged nothing\n"


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def remove(directory: Path, *, only_checkpoints: bool = False) -> None:
    """Remove a sweep's folder, or only its checkpoints.

    Raises:
        InputError: It is no sweep, or somebody drives it.
    """
    refuse_removal(directory)
    target = directory / "checkpoints" if only_checkpoints else directory
    if target.exists():
        shutil.rmtree(target)


def refuse_removal(directory: Path) -> None:
    """Do nothing when `remove` may remove this folder.

    Raises:
        InputError: It is no sweep, or somebody drives it.
    """
    if not (directory / JOURNAL).exists():
        raise InputError(
            f"{directory}: only a sweep is removed, but this folder holds no {JOURNAL}. See `chronotune ls`"
        )
    holder = read_holder(directory)
    if holder is not None and is_alive(holder):
        raise InputError(f"{directory}: process {holder['pid']} on {holder['host']} drives this sweep. Stop it first")
