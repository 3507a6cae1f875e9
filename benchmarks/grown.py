"""What a long study costs its driver: a proposal, a result and a new start when it holds thousands of trials.

    python benchmarks/grown.py                        1,000, 3,000 and 10,000 ended trials, a table
    python benchmarks/grown.py --json                 one JSON object
    python benchmarks/grown.py --sizes 100 --asks 5   fewer: to see that it runs

Searcher, scheduler, recorder and study (in a journal) are those of a sweep, without Ray and without training; the past
is written at once. What is measured: README.md beside this file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from command import carry_out
from optuna.trial import FrozenTrial, TrialState
from scale import Instant, Times, attributes_of, memory, recipe_of, timed

from chronotune import tuner
from chronotune.config.recipe import Recipe
from chronotune.data.prepare import load, trial_data
from chronotune.gauges import Work
from chronotune.records import BUDGET, OBJECTIVE, ZERO_SHOT
from chronotune.sampler import draw
from chronotune.search import StudySearcher, scheduler
from chronotune.stores import prune
from chronotune.study import Study
from chronotune.trial import Assignment

SIZES = (1000, 3000, 10_000)
"""Ended trials in the study at which is measured."""
ASKS = 20
"""Trials that are run at each size."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code."""
    options = _options().parse_args(arguments)
    return carry_out(options, lambda: benchmark(options.sizes, options.asks), print_table)


def benchmark(sizes: Sequence[int], asks: int) -> dict[str, Any]:
    """What `--json` prints: the figures of `measure` at each size, of one study that grows."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "sweep"
        directory.mkdir()
        recipe = recipe_of(10 * max(sizes), f"sqlite:///{folder}/mlflow.db")
        assignment = Assignment(recipe, trial_data(load(recipe), recipe), directory)
        Study.create(directory, "sweep", attributes_of(recipe)).note(ZERO_SHOT, [])
        return {"asks": asks, "sizes": [measure(assignment, size, asks) for size in sizes]}


def measure(assignment: Assignment, size: int, asks: int) -> dict[str, Any]:
    """Fill the study up to `size` ended trials, open it as `resume` does, then run `asks` trials.

    Returns:
        Milliseconds of a proposal, where the trial before it took longer than a sampler does, of the sampler's draw,
        and of all that is done for a result; seconds of the opening, with the rungs filled again; memory of the process
        and the journal in MB.
    """
    study = Study.reopen(assignment.directory)
    fill(study, assignment.recipe, size)
    began = time.perf_counter()
    study, recipe = Study.reopen(assignment.directory), assignment.recipe
    asha = scheduler(recipe)
    searcher = StudySearcher(study, recipe, asha, wanted=recipe.budget.trials, slots=lambda: 1)
    opened, times = time.perf_counter() - began, Times()
    with timed(times):
        run(study, assignment, searcher, asha, asks)
    return {
        "trials": size,
        "open_s": opened,
        "ask_ms": times.ask_ms,
        "draw_ms": times.draw_ms,
        "ms_per_result": times.ms_per_result,
        "memory_mb": memory(),
        "journal_mb": (assignment.directory / "study.journal").stat().st_size / 1e6,
    }


def fill(study: Study, recipe: Recipe, size: int) -> None:
    """Add ended trials, at random points, until there are `size`: of nine, six, two and one end at the three rungs."""
    blank = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=len(study.trials)))
    drawn = draw(recipe.search_space)
    with study.together():
        for number in range(len(study.trials), size):
            trial = blank.ask()
            point = drawn(trial).model_dump(exclude_none=True)
            study._study.add_trial(_ended(recipe, number, point, trial))


def _ended(recipe: Recipe, number: int, point: dict[str, Any], trial: optuna.Trial) -> FrozenTrial:
    reports = list(_reports(recipe, number, point))[: 1 if number % 9 < 6 else 2 if number % 9 < 8 else 3]
    results = {
        f"result:{report[BUDGET]}": {key: report[key] for key in ("metrics", "attributes")} for report in reports
    }
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if len(reports) == len(recipe.rungs) else TrialState.PRUNED,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values={report[BUDGET]: report[OBJECTIVE] for report in reports},
        user_attrs={"hyperparameters": point, **results},
        value=min(report[OBJECTIVE] for report in reports),
    )


def _reports(recipe: Recipe, number: int, point: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a trial reports at each rung, to its end."""
    trial = object.__new__(Instant)
    trial.setup({"number": number, "hyperparameters": point}, SimpleNamespace(recipe=recipe))  # type: ignore[arg-type]
    for _ in recipe.rungs:
        yield trial.step()


def run(study: Study, assignment: Assignment, searcher: StudySearcher, asha: Any, count: int) -> None:
    """Ray Tune's part for `count` new trials, one after the other."""

    def tidy() -> None:
        prune(assignment.store, study.trials, assignment.recipe.checkpoints_at_work)

    def on_record() -> None:
        Work.of(study.read())

    recorder = tuner._Recorder(study, searcher, assignment, on_record, tidy, None)
    for index in range(count):
        trial = SimpleNamespace(trial_id=f"t{index}", config=searcher.suggest(f"t{index}"))
        asha.on_trial_add(None, trial)
        if begun := study._drawing._begun:
            begun[1].result()
        for report in _reports(assignment.recipe, trial.config["number"], trial.config["hyperparameters"]):
            stop = asha.on_trial_result(None, trial, report) == "STOP"
            told = {**report, "done": report["done"] or stop}
            recorder.on_trial_result(index, [], trial, told)
            if told["done"]:
                break
        searcher.on_trial_complete(trial.trial_id, told)
        recorder.on_trial_complete(index, [], trial)


def print_table(results: dict[str, Any]) -> None:
    """A line for each size."""
    print("trials   open s   ask ms   draw ms   ms a result   memory MB   journal MB")
    for row in results["sizes"]:
        print(
            f"{row['trials']:>6,} {row['open_s']:>8.1f} {row['ask_ms']:>8.0f} {row['draw_ms']:>9.0f}"
            f" {row['ms_per_result']:>13.1f} {row['memory_mb']:>11.0f} {row['journal_mb']:>12.1f}"
        )


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="ended trials, ascending")
    parser.add_argument("--asks", type=int, default=ASKS, help="trials that are run at each size")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


if __name__ == "__main__":
    sys.exit(main())
