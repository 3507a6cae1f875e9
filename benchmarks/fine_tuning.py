"""What a minute of fine-tuning brings: validation SQL of steel before and after, on the origins of its recipe.

    python benchmarks/fine_tuning.py                   a table
    python benchmarks/fine_tuning.py --seconds 20 --context 336 --json

Trains on the training segment alone; the test segment is not read. The budget in windows is what a short trial run
says will fit into the seconds, so the learning rate falls to 0 at their end.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from command import carry_out

from chronotune.config.load import load_recipe
from chronotune.config.recipe import Recipe
from chronotune.config.space import Hyperparameters
from chronotune.data.panel import TrialData
from chronotune.data.prepare import load, trial_data
from chronotune.finetune import FineTuner
from chronotune.trial import Assignment, Worker

RECIPE = Path(__file__).parents[1] / "tuning" / "steel.yaml"
PROBE_STEPS = 6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code."""
    options = _options().parse_args(arguments)
    return carry_out(options, lambda: benchmark(options), lambda results: print(table(results)))


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Scores before and after, and what was trained in which time."""
    recipe = read_recipe(options.model)
    data = trial_data(load(recipe), recipe)
    point = Hyperparameters(
        learning_rate=options.rate,
        windows=options.windows,
        accumulation=1,
        context_length=options.context,
        covariates=options.covariates,
        mode="full",
        lora_rank=None,
    )
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(Assignment(recipe, data, Path(folder)), options.threads)
        before = worker.score(worker.base, point.context_length, point.covariates)
        budget = windows_that_fit(worker, recipe, data, point, options.seconds)
        began = time.perf_counter()
        tuner = new_tuner(worker, recipe, data, point, budget)
        progress = tuner.advance(budget)
        seconds = time.perf_counter() - began
        after = worker.score(tuner.model, point.context_length, point.covariates)
    return {
        "sql_zero_shot": before["sql"],
        "sql_fine_tuned": after["sql"],
        "gain": 1 - after["sql"] / before["sql"],
        "wql_zero_shot": before["wql"],
        "wql_fine_tuned": after["wql"],
        "seconds": round(seconds, 1),
        "windows_seen": progress.windows_seen,
        "steps": progress.steps,
        **point.model_dump(),
    }


def read_recipe(model: str) -> Recipe:
    """The steel recipe, with the file that CHRONOTUNE_STEEL_CSV names if it is set."""
    file = os.environ.get("CHRONOTUNE_STEEL_CSV")
    return load_recipe(str(RECIPE), [f"model={model}", *([f"data.path={file}"] if file else [])])


def windows_that_fit(worker: Worker, recipe: Recipe, data: TrialData, point: Hyperparameters, seconds: float) -> int:
    """Training windows for the seconds at the speed of a few steps, in whole steps."""
    size = point.effective_batch
    probe = new_tuner(worker, recipe, data, point, PROBE_STEPS * size)
    probe.advance(size)
    progress = probe.advance(PROBE_STEPS * size)
    return max(1, int(seconds / progress.seconds * (PROBE_STEPS - 1))) * size


def new_tuner(worker: Worker, recipe: Recipe, data: TrialData, point: Hyperparameters, budget: int) -> FineTuner:
    """As a trial of the recipe would have it, with a budget of its own."""
    return FineTuner(
        worker.base,
        data.panel,
        point,
        train_end=data.train_end,
        horizon=data.horizon,
        covariates=recipe.data.sets[point.covariates],
        budget_windows=budget,
        rungs=[budget],
        seed=recipe.seed,
    )


def table(result: dict[str, Any]) -> str:
    """Before, after, and the setting."""
    return "\n".join(
        [
            f"{'':<14}{'SQL':>8}{'WQL':>8}",
            f"{'zero-shot':<14}{result['sql_zero_shot']:>8.4f}{result['wql_zero_shot']:>8.3f}",
            f"{'fine-tuned':<14}{result['sql_fine_tuned']:>8.4f}{result['wql_fine_tuned']:>8.3f}",
            f"SQL {-result['gain']:+.1%} after {result['seconds']:.0f} s, {result['windows_seen']:,} windows in "
            f"{result['steps']} steps: context {result['context_length']}, covariates {result['covariates']}, "
            f"{result['windows']} windows a step, learning rate {result['learning_rate']:g}",
        ]
    )


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="name or path of a model preset")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to train")
    parser.add_argument("--context", type=int, default=672, help="context length in steps")
    parser.add_argument("--covariates", default="known", help="covariate set of the recipe")
    parser.add_argument("--windows", type=int, default=8, help="windows a step")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


if __name__ == "__main__":
    sys.exit(main())
