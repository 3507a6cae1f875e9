"""Record learning curves of real fine-tuning: every point of a finite space, trained to its full budget.

    python benchmarks/record_curves.py solar      benchmarks/curves/solar.parquet, 64 configurations
    python benchmarks/record_curves.py steel      benchmarks/curves/steel.parquet, 60 configurations

One configuration after the other on one thread; the file is written after each. Killed and started again it goes on.
Times are processor time of this process, which other work on the machine changes little, not wall time.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import curves
import polars as pl

from chronotune.config.recipe import Recipe
from chronotune.config.space import Hyperparameters
from chronotune.data.prepare import Dataset, load, trial_data
from chronotune.errors import ChronotuneError
from chronotune.export import pinned
from chronotune.finetune import FineTuner, NonFiniteLossError
from chronotune.trial import Assignment, Worker

Row = dict[str, Any]
Trainer = Callable[[Hyperparameters], Sequence[Row]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Record what is missing of a table; the exit code."""
    options = _options().parse_args(arguments)
    try:
        record(options.table, options.folder)
    except ChronotuneError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def record(name: str, folder: Path) -> None:
    """Train what a table lacks, and write it after each configuration.

    Raises:
        ChronotuneError: What is there already was recorded for another problem.
    """
    recipe = pinned(curves.recipe_of(name))
    dataset = load(recipe)
    worker = Worker(Assignment(recipe, trial_data(dataset, recipe), folder.resolve()), threads=1)
    folder.mkdir(parents=True, exist_ok=True)
    append(folder / f"{name}.parquet", identity_of(recipe, dataset), in_order(recipe), trainer(worker))


def identity_of(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """What all rows of a file share."""
    return {
        **curves.problem_of(recipe),
        "data": dataset.fingerprint[:16],
        "model": f"{recipe.model.name} {recipe.model.revision}",
    }


def in_order(recipe: Recipe) -> list[Hyperparameters]:
    """Every point of the recipe's space: the highest learning rates first, otherwise in an order of no meaning."""
    points = curves.points_of(recipe)
    shuffled = random.Random(recipe.seed).sample(points, len(points))
    return sorted(shuffled, key=lambda point: -point.learning_rate)


def append(file: Path, identity: Mapping[str, Any], points: Sequence[Hyperparameters], train: Trainer) -> None:
    """Train the points that `file` lacks, and add each when it is done."""
    frame = curves.read_frame(file, identity)
    known = set(curves.curves_of(frame))
    missing = [point for point in points if point not in known]
    for number, point in enumerate(missing, start=1):
        frame = pl.concat([frame, pl.DataFrame(list(train(point)), schema=curves.COLUMNS)])
        curves.write_frame(frame, file, identity)
        print(f"{file.stem}: {len(known) + number} of {len(points)}", flush=True)


def trainer(worker: Worker) -> Trainer:
    """What trains one point to the full budget, and gives its rows."""
    return lambda point: list(rows_of(worker, point))


def rows_of(worker: Worker, point: Hyperparameters) -> Iterator[Row]:
    """Train one point with the engine and score it at every rung; the last row's score is NaN when it diverged."""
    recipe, data, base = worker.assignment.recipe, worker.assignment.data, worker.base
    tuner = FineTuner(
        base,
        data.panel,
        point,
        train_end=data.train_end,
        horizon=data.horizon,
        covariates=recipe.data.sets[point.covariates],
        budget_windows=recipe.budget.windows,
        rungs=recipe.rungs,
        seed=recipe.seed,
    )
    for number, rung in enumerate(recipe.rungs, start=1):
        begin = time.process_time()
        try:
            tuner.advance(rung)
        except NonFiniteLossError:
            yield _row(point, number, rung, float("nan"), time.process_time() - begin, 0.0)
            return
        trained = time.process_time()
        score = worker.score(tuner.model, point.context_length, point.covariates)[recipe.objective]
        yield _row(point, number, rung, score, trained - begin, time.process_time() - trained)


def _row(point: Hyperparameters, number: int, windows: int, score: float, training: float, scoring: float) -> Row:
    times = {"train_seconds": round(training, 3), "score_seconds": round(scoring, 3)}
    return {**point.model_dump(), "rung": number, "windows_seen": windows, "score": score, **times}


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=sorted(curves.CHANGES), help="what to record")
    parser.add_argument("--folder", type=Path, default=curves.FOLDER, help="where its file is, or is to be")
    return parser


if __name__ == "__main__":
    sys.exit(main())
