"""Trials per hour of a sweep, beside plain Ray Tune and plain Optuna with the same configurations.

    python benchmarks/turnover.py                            24 trials on solar, one seed, all three ways: a table
    python benchmarks/turnover.py --seeds 0 1 2 3 4 --json   five seeds, one JSON object
    python benchmarks/turnover.py --recipe steel --trials 6 --windows 5184
                                                             fewer and longer trials, on the steel plant
    python benchmarks/turnover.py --quick --trials 2         few windows: to see that it runs

Each way runs in a process of its own, one after the other. What is compared: README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias
from unittest.mock import patch

from command import carry_out

from chronotune.config.load import load_recipe
from chronotune.config.recipe import Recipe
from chronotune.errors import ChronotuneError

if TYPE_CHECKING:
    from plain_ways import Reached, Task, Trial

TUNING = Path(__file__).parents[1] / "tuning"
WAYS = ("ours", "plain_ray", "plain_optuna")
SLOTS = 2
Until: TypeAlias = tuple[float, float]
"""Seconds after the beginning of a search when ours had ended, and when it had written what it exports."""
QUICK = ("budget.windows=24", "early_stopping.grace=8", "search_space.context_length=64")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code."""
    options = _options().parse_args(arguments)
    if options.way:  # in a process of its own
        found = run_way(options.way, recipe_of(options, options.seeds[0]), Path(options.folder), tuple(options.until))
        print(json.dumps(found))
        return 0
    return carry_out(options, lambda: benchmark(options), print_table)


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """All ways for all seeds.

    Returns:
        What `--json` prints: `runs` by way, in the order of the seeds, those of ours with what every contender of its
        evaluation scores; the medians over the seeds of trials per hour, of `busy_share` and of `gap` in seconds;
        `trials_per_hour_ratio` of ours to the others; what was the best when
        ours had ended, `validation` and `test` of each way and seed, null where it had no result yet; the same of what
        each way could `hand_out` when ours had written what it exports, `hand_out_s` after the beginning; and the
        highest memory, and seconds of training and validation of the `longest` trial.
    """
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in options.ways}
    for seed in options.seeds:
        until = (math.inf, math.inf)
        for way in sorted(options.ways, key=WAYS.index):  # ours first: the others are looked at when it has ended
            runs[way].append(in_own_process(way, seed, options, until))
            until = (runs[way][-1]["seconds"], runs[way][-1]["hand_out_s"]) if way == "ours" else until
            if not options.json:
                print(f"seed {seed}, {way}: {runs[way][-1]['seconds']:.0f} s", file=sys.stderr, flush=True)
    rates = {way: median(run["trials"] / run["seconds"] * 3600 for run in runs[way]) for way in runs}
    others = [way for way in rates if way != "ours"]
    return {
        "recipe": options.recipe,
        "trials": options.trials,
        "seeds": options.seeds,
        "trials_per_hour": rates,
        "trials_per_hour_ratio": {way: rates["ours"] / rates[way] for way in others} if "ours" in rates else {},
        "busy_share": {way: median(run["busy_share"] for run in runs[way]) for way in runs},
        "gap": {way: median(run["gap"] for run in runs[way]) for way in runs},
        "validation": {way: [run["validation"] for run in runs[way]] for way in runs},
        "test": {way: [run["test"] for run in runs[way]] for way in runs},
        "hand_out": {way: [run["hand_out"] for run in runs[way]] for way in runs},
        "longest": {way: max(run["longest"] for run in runs[way]) for way in runs},
        "peak_bytes": {way: max(run["peak_bytes"] for run in runs[way]) for way in runs},
        "runs": runs,
    }


def in_own_process(way: str, seed: int, options: argparse.Namespace, until: Until) -> dict[str, Any]:
    """One way for one seed, with the highest memory of its process tree."""
    with tempfile.TemporaryDirectory() as folder:
        length = [
            *(["--quick"] if options.quick else []),
            *(["--windows", str(options.windows)] * bool(options.windows)),
        ]
        command = [sys.executable, __file__, "--way", way, "--folder", folder, "--recipe", options.recipe, *length]
        command += ["--model", options.model, "--seeds", str(seed), "--until", *map(str, until)]
        command += ["--trials", str(options.trials)]
        with (Path(folder) / "stderr").open("w+") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
            peak = 0
            while process.poll() is None:
                peak = max(peak, memory_of_tree(process.pid))
                time.sleep(1)  # reading it takes a process tree's time
            assert process.stdout is not None
            lines = process.stdout.read().strip().splitlines()
            if process.returncode:
                errors.seek(0)
                raise ChronotuneError(f"{way} failed: {errors.read()[-2000:]}")
    return {**json.loads(lines[-1]), "peak_bytes": peak}


def memory_of_tree(pid: int) -> int:
    """Proportional set size of a process and all below it, in bytes: shared pages are counted once."""
    import psutil

    total = 0
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in processes:
        try:
            total += getattr(process.memory_full_info(), "pss", 0)
        except psutil.Error:  # it has ended since
            continue
    return total


def recipe_of(options: argparse.Namespace, seed: int) -> Recipe:
    """The recipe, with given configurations: the random sampler's, which depend on seed and trial number alone."""
    file = os.environ.get("CHRONOTUNE_STEEL_CSV") if options.recipe == "steel" else None
    changes = [f"seed={seed}", f"model={options.model}", "cluster=local", "finalists.top=0"]
    changes += [f"budget.trials={options.trials}"]
    changes += ["search.sampler=random", "search.vendor_defaults=false"]
    changes += [f"data.path={file}"] if file else []
    if windows := options.windows:
        changes += [f"budget.windows={windows}", f"early_stopping.grace={windows // 6}"]
    return load_recipe(str(TUNING / f"{options.recipe}.yaml"), [*changes, *(QUICK if options.quick else ())])


def run_way(way: str, recipe: Recipe, folder: Path, until: Until) -> dict[str, Any]:
    """One search, in this process: how long it took, how busy its slots were, and how good its best was by `until`."""
    return _ours(recipe, folder) if way == "ours" else _plain(way, recipe, folder, until)


def _ours(recipe: Recipe, folder: Path) -> dict[str, Any]:
    from chronotune import challenger, tuner
    from chronotune.study import read
    from chronotune.sweep import run_sweep

    changed = recipe.tracking.model_copy(update={"uri": f"sqlite:///{folder}/mlflow.db"})
    moments: list[float] = []  # when the search began, and when what is exported had been written

    def run_tuner(*arguments: Any) -> None:
        moments.append(time.perf_counter())
        tuner.run_tuner(*arguments)

    def settle(*arguments: Any) -> None:
        challenger.settle(*arguments)
        moments.append(time.perf_counter())

    with patch("chronotune.sweep.run_tuner", run_tuner), patch("chronotune.sweep.settle", settle):
        directory = run_sweep(recipe.model_copy(update={"tracking": changed}), folder / "sweep")
    reading = read(directory)
    seconds = float(reading.attributes["seconds"])
    ended = [trial for trial in reading.trials if trial.results and trial.started and trial.ended]
    busy = [trial.results[-1].attributes["seconds"] for trial in ended]
    zero_shot = sum(one["seconds"] for one in reading.attributes["zero_shot"])
    spans = [(trial.ended - trial.started).total_seconds() for trial in ended if trial.started and trial.ended]
    rows = {row["model"]: row for row in reading.attributes["evaluation"]["rows"]}
    assert reading.winner is not None
    assert reading.winner.best is not None
    best, choice = reading.winner.best.objective, reading.attributes["choice"]
    exported = choice["challenger"]
    return {
        "seconds": seconds,
        "trials": len(reading.trials),
        "busy_share": (sum(busy) + zero_shot) / (SLOTS * seconds),
        "gap": median(max(0.0, span - work) for span, work in zip(spans, busy, strict=True)),
        "longest": max(busy),
        "validation": best,
        "test": rows["best"][recipe.objective],
        "hand_out_s": moments[-1] - moments[0],
        "hand_out": {
            "what": exported,
            "validation": choice["scores"].get(exported, best),  # of a blend, on what it was fitted to
            "test": rows[exported][recipe.objective],
        },
        "contenders": {
            name: {"validation": choice["scores"].get(name), "test": row[recipe.objective]}
            for name, row in rows.items()
        },
    }


def _plain(way: str, recipe: Recipe, folder: Path, until: Until) -> dict[str, Any]:
    import plain_ways

    from chronotune.data.prepare import load, trial_data
    from chronotune.forecaster import locate

    dataset = load(recipe)
    threads = recipe.cluster.cpus_per_trial
    points = configurations(recipe)
    task = plain_ways.Task(recipe, trial_data(dataset, recipe), points, str(locate(recipe.model)), threads, SLOTS)
    trials, (began, ended) = getattr(plain_ways, way)(task, folder)
    best, handed_out = (_judged(task, best_by(trials, began + moment), dataset) for moment in until)
    seconds = ended - began
    slots = 1 if way == "plain_optuna" else SLOTS
    return {
        "seconds": seconds,
        "trials": len(trials),
        "busy_share": sum(trial.busy for trial in trials) / (slots * seconds),
        "gap": median(trial.gap for trial in trials),
        "longest": max(trial.busy for trial in trials),
        **best,
        "hand_out": {"what": "best", **handed_out},
    }


def best_by(trials: Sequence[Trial], moment: float) -> tuple[Trial, Reached] | None:
    """The best of what had been reached by a moment in Unix time, and its trial; None before the first result."""
    reached = [(trial, one) for trial in trials for one in trial.reached if one.at <= moment]
    return min(reached, key=lambda pair: pair[1].score, default=None)


def _judged(task: Task, best: tuple[Trial, Reached] | None, dataset: Any) -> dict[str, float | None]:
    if best is None:
        return {"validation": None, "test": None}
    return {"validation": best[1].score, "test": _test_score(task, *best, dataset)}


def configurations(recipe: Recipe) -> tuple[Any, ...]:
    """Those that our sweep tries under the random sampler."""
    import optuna

    from chronotune.sampler import draw, sampler

    study, suggest = optuna.create_study(), draw(recipe.search_space)
    points = []
    for number in range(recipe.budget.trials):
        study.sampler = sampler(recipe, number)
        points.append(suggest(study.ask()))
    return tuple(points)


def _test_score(task: Task, trial: Trial, best: Reached, dataset: Any) -> float:
    """The objective of the best weights on the test windows, by the same code as for ours."""
    from chronos import Chronos2Pipeline

    from chronotune import metrics
    from chronotune.data.prepare import scored_windows, training_scales
    from chronotune.data.windows import actuals
    from chronotune.forecaster import predict_windows

    recipe, panel = task.recipe, dataset.panel
    scales = training_scales(panel, dataset.split, recipe)
    windows = scored_windows(panel, dataset.split.test_origins, scales, recipe.horizon)
    forecasts = predict_windows(
        Chronos2Pipeline.from_pretrained(best.weights).model,
        panel,
        windows,
        context_length=trial.point.context_length,
        horizon=recipe.horizon,
        covariates=recipe.data.sets[trial.point.covariates],
    )
    scale = scales[[window.series for window in windows]]
    return metrics.score(forecasts, actuals(panel, windows, recipe.horizon), scale)[recipe.objective]


def print_table(results: dict[str, Any]) -> None:
    """A line for each way."""
    print(
        f"{'':<14}{'trials/h':>10}{'ours is':>9}{'busy':>7}{'gap, s':>8}{'validation':>12}{'test':>8}"
        f"{'peak, GB':>10}{'handed out: test':>18}"
    )
    for way, rate in results["trials_per_hour"].items():
        handed_out = _middle([one["test"] for one in results["hand_out"][way]])
        what = Counter(one["what"] for one in results["hand_out"][way])
        ratio = results["trials_per_hour_ratio"].get(way)
        print(
            f"{way:<14}{rate:>10.0f}{f'{ratio:.2f}x' if ratio else '':>9}{results['busy_share'][way]:>7.0%}"
            f"{results['gap'][way]:>8.2f}{_middle(results['validation'][way]):>12.4f}"
            f"{_middle(results['test'][way]):>8.4f}"
            f"{results['peak_bytes'][way] / 1e9:>10.2f}{handed_out:>18.4f}"
            f"  {', '.join(f'{count} {name}' for name, count in what.items())}"
        )


def _middle(scores: Sequence[float | None]) -> float:
    """The median, where none is the worst."""
    return median(math.inf if score is None else score for score in scores)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="quickstart", choices=("quickstart", "steel"), help="a recipe of tuning/")
    parser.add_argument("--model", default="tiny", help="name or path of a model preset")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the search and of every training")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="which to run")
    parser.add_argument("--trials", type=int, default=24, help="of each way and seed")
    parser.add_argument("--windows", type=int, help="full budget of a trial, for longer ones; its rungs grow with it")
    parser.add_argument("--quick", action="store_true", help="short trials, no figures to quote")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, nargs=2, default=(math.inf, math.inf), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
