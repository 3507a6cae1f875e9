"""What 1,000 trials cost the driver: a sweep whose trials report at once, with its journal on disk and its mirror on.

    python benchmarks/scale.py               1,000 trials, a table
    python benchmarks/scale.py --json        one JSON object
    python benchmarks/scale.py --trials 50   fewer: to see that it runs
    python benchmarks/scale.py --mlflow hanging   a server that takes requests and never answers; absent: none there

Searcher, scheduler, recorder, study, mirror, progress and Ray Tune are those of a sweep; only the training is left out.
What is measured: README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial, wraps
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
from command import carry_out
from ray import tune

from chronotune import search, tuner
from chronotune.cluster import connected, slots
from chronotune.config.load import dump_recipe, load_recipe
from chronotune.config.recipe import Recipe
from chronotune.data.prepare import load, trial_data
from chronotune.drawing import Drawing
from chronotune.errors import ChronotuneError
from chronotune.gauges import Gauges
from chronotune.lease import Lease
from chronotune.noise import LOSSES, packed
from chronotune.progress import watcher
from chronotune.records import BUDGET, OBJECTIVE, ZERO_SHOT
from chronotune.study import Study
from chronotune.tracking import Mirror
from chronotune.tracking.address import database
from chronotune.trial import Assignment

RECIPE = Path(__file__).parents[1] / "tuning" / "quickstart.yaml"
MLFLOW = ("database", "absent", "hanging")
LAST = 50
"""Asks at the end over which `ask_ms` is the median."""
BLOCK = 100
"""Results between two looks at the driver's memory."""


class Instant(tune.Trainable):  # type: ignore[misc]  # ray ships no types
    """In place of `FineTuneTrial`: the same results in the same form, at once."""

    def setup(self, config: dict[str, Any], assignment: Assignment | None = None) -> None:
        """Remember what to report."""
        assert assignment is not None
        self._rungs, self._config, self._next = assignment.recipe.rungs, config, 0
        self._origins = assignment.recipe.split.validation_origins

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another configuration."""
        self._config, self._next = new_config, 0
        return True

    def step(self) -> dict[str, Any]:
        """The result at the next rung."""
        if "number" not in self._config:
            return {ZERO_SHOT: [], BUDGET: 0, "done": True}
        rung = self._rungs[self._next]
        self._next += 1
        score = 1 + self._config["hyperparameters"]["learning_rate"] + self._config["number"] % 7 / 100 + 10 / rung
        attributes = {"seconds": 0.01, "steps": rung, "device": "cpu", "splits": [], "host": "here", "checkpoint": "0"}
        attributes[LOSSES] = packed(np.full(self._origins, score))
        result = {
            BUDGET: rung,
            OBJECTIVE: score,
            "metrics": dict.fromkeys(METRICS, score),
            "attributes": attributes,
        }
        return {**result, "number": self._config["number"], "done": rung >= self._rungs[-1]}


METRICS = ("sql", "wql", "mase", "mae", "rmse", "r2", "mape", "coverage80", "train_loss")


@dataclass
class Times:
    """Wall seconds that our code took of the driver's thread, by what it was for, and of the one that draws."""

    asks: list[float] = field(default_factory=list)
    """One for each proposed trial."""
    draws: list[float] = field(default_factory=list)
    """One for each, of what a sampler takes; in a thread of its own where proposals are drawn ahead."""
    results: list[float] = field(default_factory=list)
    """One for each call that records a result or an end, reading the study for progress and tidying included."""
    recorded: int = 0
    """Results of trials."""
    memory: list[float] = field(default_factory=list)
    """Of the driver's process, in MB, every `BLOCK` results."""

    @property
    def ms_per_result(self) -> float:
        """All that is done for a result, its share of the trial's end included."""
        return 1000 * sum(self.results) / max(1, self.recorded)

    @property
    def ask_ms(self) -> float:
        """At the end of the sweep."""
        return 1000 * median(self.asks[-LAST:])

    @property
    def draw_ms(self) -> float:
        """At the end of the sweep."""
        return 1000 * median(self.draws[-LAST:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code."""
    options = _options().parse_args(arguments)
    if options.resume:  # in a process of its own
        resume(options.resume)
        return 0
    return carry_out(options, lambda: benchmark(options.trials, options.mlflow), print_table)


def benchmark(trials: int, mlflow: str = "database") -> dict[str, Any]:
    """The sweep, then its resume in a new process.

    Args:
        trials: Of the sweep.
        mlflow: One of MLFLOW, which it is mirrored to.

    Returns:
        What `--json` prints: milliseconds of the driver's thread per result and, at the end, per ask, and of a sampler
        per draw; seconds from the call of a resume to the end of one more trial; and memory in MB.
    """
    with tempfile.TemporaryDirectory() as folder, address(mlflow, Path(folder)) as uri:
        directory = Path(folder) / "sweep"
        recipe = recipe_of(trials, uri)
        times, began = Times(), time.perf_counter()
        with connected(recipe.cluster):
            sweep(directory, recipe, times)
        seconds = time.perf_counter() - began
        mirrored = count_runs(recipe) if mlflow == "database" else 0
        return {
            "trials": trials,
            "mlflow": mlflow,
            "results": times.recorded,
            "driver_ms_per_result": times.ms_per_result,
            "ask_ms": times.ask_ms,
            "draw_ms": times.draw_ms,
            "ask_ms_at_the_beginning": 1000 * median(times.asks[:LAST]),
            "resume_s": resume_in_own_process(directory),
            "seconds": seconds,
            "mirrored_runs": mirrored,
            "memory_mb": times.memory,
            "journal_mb": (directory / "study.journal").stat().st_size / 1e6,
        }


@contextmanager
def address(mlflow: str, folder: Path) -> Iterator[str]:
    """Where one of MLFLOW is: a database in `folder`, or a port of this machine that does not answer."""
    if mlflow == "database":
        yield f"sqlite:///{folder}/mlflow.db"
        return
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if mlflow == "hanging":
            server.listen()  # the system lets callers in, and nobody speaks to them
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def recipe_of(trials: int, uri: str) -> Recipe:
    """The quickstart with so many trials, mirrored to an address."""
    return load_recipe(str(RECIPE), [f"budget.trials={trials}", "cluster=local", f"tracking.uri={uri}"])


def sweep(directory: Path, recipe: Recipe, times: Times, trainable: type = Instant) -> None:
    """What `chronotune run` does up to the end of the search, with `trainable` in place of the training."""
    data = trial_data(load(recipe), recipe)
    directory.mkdir(parents=True)
    with Lease(directory):
        (directory / "recipe.yaml").write_text(dump_recipe(recipe))
        study = Study.create(directory, directory.name, attributes_of(recipe))
        with Mirror(directory, recipe.tracking, read=study.shared) as mirror, timed(times):
            drive(study, Assignment(recipe, data, directory), lambda: mirror.report.results, trainable)
            mirror.flush(timeout=600 if database(recipe.tracking.uri or "") else 1)
        study.note("ended", datetime.now(UTC).isoformat(timespec="seconds"))


def attributes_of(recipe: Recipe) -> dict[str, Any]:
    """Of a new study, as a sweep sets them."""
    return {
        "recipe": recipe.model_dump(mode="json"),
        "identity": {"data": "none"},
        "trials": recipe.budget.trials,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def drive(study: Study, assignment: Assignment, mirrored: Callable[[], int | None], trainable: type = Instant) -> None:
    """The search without training, with progress in lines that nobody reads and gauges that nobody fetches."""
    from rich.console import Console

    with Path(os.devnull).open("w") as nowhere, patch.object(tuner, "FineTuneTrial", trainable):
        lines, fit = watcher(Console(file=nowhere)), partial(slots, assignment.recipe.cluster)
        gauges = Gauges(assignment.directory.name, study.read(), fit, mirrored)

        def recorded() -> None:
            reading = study.read()
            lines.update(reading)
            gauges.update(reading)

        tuner.run_tuner(study, assignment, recorded)


@contextmanager
def timed(times: Times) -> Iterator[None]:
    """Measure our part of what the driver does; what Ray Tune does itself, and the mirror, is not in it."""

    def recorded(*_: Any) -> None:
        times.recorded += 1
        if times.recorded % BLOCK == 0:
            times.memory.append(memory())

    recorder, searcher = tuner._Recorder, search.StudySearcher
    with ExitStack() as stack:
        _measure(stack, searcher, "suggest", times.asks, counts=lambda proposal: "number" in (proposal or ()))
        _measure(stack, Drawing, "_draw", times.draws)
        _measure(stack, recorder, "on_trial_result", times.results, then=recorded)
        _measure(stack, recorder, "on_trial_complete", times.results)
        _measure(stack, searcher, "on_trial_complete", times.results)
        yield


def _measure(
    stack: ExitStack,
    owner: type,
    name: str,
    into: list[float],
    counts: Callable[[Any], bool] = lambda _: True,
    then: Callable[[], None] = lambda: None,
) -> None:
    original = getattr(owner, name)

    @wraps(original)
    def measured(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        found = original(*arguments, **named)
        if counts(found):
            into.append(time.perf_counter() - began)
        then()
        return found

    stack.enter_context(patch.object(owner, name, measured))


def memory() -> float:
    """Resident memory of this process in MB."""
    import psutil

    return float(psutil.Process().memory_info().rss / 1e6)


def count_runs(recipe: Recipe) -> int:
    """Runs that MLflow holds now, the sweep's own included."""
    from mlflow import MlflowClient

    client, found, token = MlflowClient(tracking_uri=recipe.tracking.uri), 0, None
    experiment = client.get_experiment_by_name(recipe.tracking.experiment)
    assert experiment is not None
    while page := client.search_runs([experiment.experiment_id], page_token=token):
        found, token = found + len(page), page.token
        if not token:
            break
    return found


def resume_in_own_process(directory: Path) -> float:
    """Seconds of a process that resumes the sweep for one more trial, all of it: from its start to its end."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--resume", str(directory)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise ChronotuneError(f"the sweep must resume, but: {process.stderr[-2000:]}")
    return time.perf_counter() - began


def resume(directory: Path) -> None:
    """Go on with the sweep for one more trial."""
    recipe = load_recipe(directory / "recipe.yaml")
    data = trial_data(load(recipe), recipe)
    with Lease(directory), connected(recipe.cluster):
        study = Study.reopen(directory)
        study.note("trials", len(study.trials) + 1)
        drive(study, Assignment(recipe, data, directory), lambda: None)
        print(json.dumps({"trials": len(study.trials)}))


def print_table(results: dict[str, Any]) -> None:
    """The figures, one a line."""
    memory_mb = results["memory_mb"] or [0.0]
    mlflow = "" if results["mlflow"] == "database" else f", MLflow's server {results['mlflow']}"
    print(f"{results['trials']:,} trials, {results['results']:,} results in {results['seconds']:.0f} s{mlflow}")
    print(f"driver, per result       {results['driver_ms_per_result']:>8.1f} ms")
    print(f"driver, per ask          {results['ask_ms']:>8.1f} ms (first: {results['ask_ms_at_the_beginning']:.1f} ms)")
    print(f"sampler, per draw        {results['draw_ms']:>8.1f} ms")
    print(f"resume, from its call to the end of one more trial {results['resume_s']:.1f} s")
    print(f"memory of the driver     {memory_mb[0]:>8.0f} MB, at the end {memory_mb[-1]:.0f} MB")
    print(f"journal {results['journal_mb']:.1f} MB; runs in MLflow: {results['mirrored_runs']:,}")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="of the sweep")
    parser.add_argument("--mlflow", choices=MLFLOW, default="database", help="what it is mirrored to")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--resume", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
