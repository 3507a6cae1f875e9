"""A small recipe and a study without training: what the tests of a sweep's parts work on."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import optuna
from typer.testing import CliRunner

from chronotune.cli import app
from chronotune.config.load import dump_recipe
from chronotune.config.recipe import Recipe
from chronotune.config.space import Hyperparameters
from chronotune.data.prepare import load
from chronotune.export import write_declarations
from chronotune.proposal import Proposal
from chronotune.results import sweeps
from chronotune.study import Result, Study


def small_recipe(weights: Path | str = "nowhere", **changes: Any) -> Recipe:
    """Solar, a day ahead, with a model of at most 128 steps of context; `changes` replace whole parts."""
    parts: dict[str, Any] = {
        "name": "small",
        "data": {
            "source": "solar",
            "time": "time",
            "target": "ghi",
            "known_future": ["etr"],
            "past_only": ["temperature"],
            "seasons": [24],
        },
        "horizon": 24,
        "split": {"validation_origins": 3},
        "model": {"name": "small", "weights": str(weights), "max_context_length": 128},
        "search_space": {
            "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
            "windows": {"type": "int", "low": 2, "high": 4, "step": 2},
            "accumulation": {"type": "choice", "values": [1, 2]},
            "context_length": {"type": "choice", "values": [48, 96]},
            "covariates": {"type": "choice", "values": ["none", "known", "all"]},
            "mode": {"type": "choice", "values": ["full", "lora"]},
            "lora_rank": {"type": "choice", "values": [2, 4], "when": {"mode": "lora"}},
        },
        "budget": {"trials": 4, "windows": 27},
        "early_stopping": {"grace": 3, "reduction": 3},
        "search": {"startup_trials": 2},
        "evaluation": {"trees": False, "blends": False},
        "tracking": {"enabled": False},
        "cluster": {"name": "local"},
    }
    return Recipe.model_validate({**parts, **changes})


POINT = Hyperparameters(
    learning_rate=1e-3, windows=4, accumulation=1, context_length=96, covariates="known", mode="full", lora_rank=None
)


def new_study(directory: Path, recipe: Recipe | None = None, url: str | None = None) -> Study:
    """An empty study in `directory`, or in the database at `url`, as a sweep begins it."""
    recipe = recipe or small_recipe()
    attributes = {"recipe": recipe.model_dump(mode="json"), "identity": {"data": "1"}, "trials": recipe.budget.trials}
    return Study.create(directory, "small", attributes, url)


def any_point(trial: optuna.Trial) -> Hyperparameters:
    """A define-by-run function of one parameter."""
    return POINT.model_copy(update={"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)})


def ask(study: Study) -> int:
    """A new trial with a random learning rate."""
    number = len(study.trials)
    return study.ask(Proposal(optuna.samplers.RandomSampler(seed=number), any_point)).number


def result(windows_seen: int, objective: float) -> Result:
    """What a trial reports."""
    return Result(windows_seen, objective, {"sql": objective}, {"seconds": 1.5, "steps": 4, "device": "cpu"})


def judged_sweep(directory: Path, decision: str | None, model: Path | None = None) -> Path:
    """A finished sweep whose winner is in its folder, with this verdict on it; None: it was never evaluated.

    The winner has the weights of the folder `model`, or none that could be loaded.
    """
    recipe, winner = small_recipe(), directory / "winner"
    winner.mkdir(parents=True)
    (directory / "recipe.yaml").write_text(dump_recipe(recipe))
    (winner / "model.safetensors").write_bytes(b"weights")
    for name in ("model.safetensors", "config.json") if model else ():
        shutil.copy(model / name, winner)  # type: ignore[operator]  # there is one
    study = new_study(directory, recipe)
    study.note("zero_shot", [{"context_length": 48, "covariates": "none", "metrics": {"sql": 0.9}}])
    number = ask(study)
    study.record(number, result(27, 0.5))
    study.finish(number, 27)
    told: dict[str, Any] = {"name": "small-0", "windows_seen": 27, "score": 0.5, "trial": 0}
    digest = write_declarations(winner, recipe, POINT, load(recipe).panel, **told)
    study.note("winner", {"number": 0, "windows_seen": 27, "score": 0.5, "sha256": digest, "bytes": 7})
    if decision is not None:
        verdict = {"decision": decision, "sentence": f"{decision}: so they say", "objective": "sql"}
        interval = {"gain": 0.02, "low": 0.01, "high": 0.03}
        evaluation = {"rows": [], "verdict": {**verdict, **interval}, "test_openings": 1, "sha256": digest}
        study.note("evaluation", evaluation)
    study.note("ended", "2026-01-02T05:04:05+00:00")
    return directory


def looked_at(sweep: Path) -> tuple[str, str]:
    """What `ls` calls a sweep's state, and what the last line of `show` says of its driver."""
    [listed] = [one for one in sweeps(sweep.parent) if one["path"] == str(sweep)]
    shown = CliRunner().invoke(app, ["show", str(sweep)])
    assert shown.exit_code == 0, shown.output
    return listed["state"], " ".join(re.findall(r"driven by process \d+ on", shown.output))
