"""Learning curves of real fine-tuning, recorded for every point of a finite search space: what is simulated from.

`record_curves.py` writes them, `search.py` looks them up.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from chronotune.config.load import load_recipe
from chronotune.config.points import grid
from chronotune.config.recipe import Recipe
from chronotune.config.space import Hyperparameters
from chronotune.errors import ChronotuneError
from chronotune.identity import SCORED

FOLDER = Path(__file__).parent / "curves"
TUNING = Path(__file__).parents[1] / "tuning"

_RANK = "search_space.lora_rank={type: fixed, value: 8, when: {mode: lora}}"
_NOT_MORE = ("search.vendor_defaults=false", "finalists.top=0", "tracking.enabled=false", "cluster=local")
CHANGES: Mapping[str, Sequence[str]] = {
    "solar": (
        _RANK,
        "search_space.learning_rate={type: choice, values: [3.0e-5, 1.0e-4, 3.0e-4, 1.0e-3]}",
        "search_space.windows={type: choice, values: [4, 16]}",
        "search_space.accumulation=1",
        "search_space.context_length={type: choice, values: [336, 1008]}",
        "search_space.covariates={type: choice, values: [none, known]}",
        *_NOT_MORE,
    ),
    "steel": (
        _RANK,
        "search_space.learning_rate={type: choice, values: [3.0e-5, 1.0e-4, 3.0e-4, 1.0e-3, 3.0e-3]}",
        "search_space.windows=8",
        "search_space.accumulation=1",
        "search_space.context_length={type: choice, values: [192, 672]}",  # two days, a week
        *_NOT_MORE,
    ),
}
"""By the name of a table, how its recipe differs from the one in tuning/: a space whose every point was recorded."""

_RECIPES = {"solar": "quickstart", "steel": "steel"}
POINT = {
    "learning_rate": pl.Float64,
    "windows": pl.Int32,
    "accumulation": pl.Int32,
    "context_length": pl.Int32,
    "covariates": pl.String,
    "mode": pl.String,
    "lora_rank": pl.Int32,
}
COLUMNS = {
    **POINT,
    "rung": pl.Int32,
    "windows_seen": pl.Int32,
    "score": pl.Float64,
    "train_seconds": pl.Float64,
    "score_seconds": pl.Float64,
}
"""Of a table's file: a row for every configuration and rung. Seconds are processor time since the rung before."""


@dataclass(frozen=True)
class Curve:
    """One configuration at its rungs; it ends early, with a score of NaN, where training diverged."""

    windows_seen: tuple[int, ...]
    scores: tuple[float, ...]
    """Validation objective in original units, lower is better."""
    seconds: tuple[float, ...]
    """Of training and scoring since the rung before, one thread."""

    @property
    def best(self) -> float:
        """The lowest score, infinite if there is none."""
        return min((score for score in self.scores if math.isfinite(score)), default=math.inf)


@dataclass(frozen=True)
class Table:
    """All curves of a recorded search space."""

    name: str
    recipe: Recipe
    curves: Mapping[Hyperparameters, Curve]

    @property
    def best(self) -> float:
        """The lowest score of all that were recorded."""
        return min(curve.best for curve in self.curves.values())


def recipe_of(name: str) -> Recipe:
    """The recipe whose space, budget and rungs a table records."""
    file = os.environ.get("CHRONOTUNE_STEEL_CSV") if name == "steel" else None
    changes = [*CHANGES[name], *([f"data.path={file}"] if file else [])]
    return load_recipe(str(TUNING / f"{_RECIPES[name]}.yaml"), changes)


def points_of(recipe: Recipe) -> list[Hyperparameters]:
    """Every point of the recipe's space, in a fixed order."""
    fixed = {key: p.value for key, p in recipe.search_space.parameters.items() if p.type == "fixed"}
    rank = fixed.pop("lora_rank", None)
    points = [{**fixed, **point} for point in grid(recipe.search_space)]
    return [Hyperparameters(**p, lora_rank=rank if p["mode"] == "lora" else None) for p in points]


def read_frame(file: Path, identity: Mapping[str, Any]) -> pl.DataFrame:
    """The rows of a table's file; none if there is no file.

    Raises:
        ChronotuneError: It was recorded with another identity: other data, model, budget or ruler.
    """
    if not file.exists():
        return pl.DataFrame(schema=COLUMNS)
    recorded = json.loads(pl.read_parquet_metadata(file)["identity"])
    if differing := [key for key, value in identity.items() if recorded.get(key) != value]:
        raise ChronotuneError(
            f"{file}: curves must be of one and the same problem, but {', '.join(differing)} was another when these "
            f"were recorded. Delete the file and record again: python benchmarks/record_curves.py"
        )
    return pl.read_parquet(file)


def write_frame(frame: pl.DataFrame, file: Path, identity: Mapping[str, Any]) -> None:
    """Replace a table's file, whole or not at all."""
    partial = file.with_suffix(".partial")
    frame.write_parquet(partial, metadata={"identity": json.dumps(identity)})
    partial.replace(file)


def problem_of(recipe: Recipe) -> dict[str, Any]:
    """The part of a table's identity that its recipe says. Not its space: that may grow, and what is there counts."""
    return {
        "rungs": list(recipe.rungs),
        "budget": recipe.budget.windows,
        "horizon": recipe.horizon,
        "objective": recipe.objective,
        "origins": recipe.split.validation_origins,
        "scored": SCORED,
        "seed": recipe.seed,
    }


def read_table(name: str, folder: Path = FOLDER) -> Table:
    """A recorded table.

    Raises:
        ChronotuneError: It is not there, was recorded for another recipe, or is not complete.
    """
    recipe = recipe_of(name)
    curves = curves_of(read_frame(folder / f"{name}.parquet", problem_of(recipe)))
    if missing := sum(point not in curves for point in points_of(recipe)):
        raise ChronotuneError(
            f"{name}: every point of the space must have been recorded, but {missing} were not. "
            f"Record them: python benchmarks/record_curves.py {name}"
        )
    return Table(name, recipe, curves)


def curves_of(frame: pl.DataFrame) -> dict[Hyperparameters, Curve]:
    """The curves by configuration."""
    found = {}
    for key, rows in frame.group_by(list(POINT), maintain_order=True):
        rung = rows.sort("rung")
        seconds = rung["train_seconds"] + rung["score_seconds"]
        curve = Curve(tuple(rung["windows_seen"]), tuple(rung["score"]), tuple(seconds))
        found[Hyperparameters(**dict(zip(POINT, key, strict=True)))] = curve
    return found
