"""How much of its slots' time a search uses as they become more: trials that sleep, and report every second.

    python benchmarks/slots.py                     1, 2, 4, 8, 16 and 32 slots, a table
    python benchmarks/slots.py --json              one JSON object
    python benchmarks/slots.py --slots 2 --each 1  fewer: to see that it runs

Searcher, scheduler, recorder, study, mirror, progress and Ray Tune are those of a sweep; in place of training a trial
sleeps, so that many slots fit on one machine. What is measured: README.md beside this file.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from command import carry_out
from ray import tune
from scale import RECIPE, Times, sweep

from chronotune.cluster import connected, session
from chronotune.config.load import load_recipe
from chronotune.config.recipe import Recipe
from chronotune.errors import ChronotuneError
from chronotune.noise import LOSSES, packed
from chronotune.records import BUDGET, OBJECTIVE, ZERO_SHOT
from chronotune.study import Reading, read
from chronotune.trial import Assignment

SLOTS = (1, 2, 4, 8, 16, 32)
EACH = 10
"""Trials a slot."""
REPORTS = 10
"""Of one trial, one a second: ten rungs, each twice the last."""
WORKER_GB = 0.35
"""Memory that a worker may take, so that nothing is started that does not fit."""


class Sleeping(tune.Trainable):  # type: ignore[misc]  # ray ships no types
    """In place of `FineTuneTrial`: sleeps a second and reports, in the same form, when and where it did.

    All scores at a rung are the same: ASHA judges each of them and stops no trial, so that all are of one length.
    """

    def setup(self, config: dict[str, Any], assignment: Assignment | None = None) -> None:
        """Remember what to report."""
        assert assignment is not None
        self._rungs, self._config, self._next = assignment.recipe.rungs, config, 0
        self._losses = assignment.recipe.split.validation_origins

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another configuration."""
        self._config, self._next = new_config, 0
        return True

    def step(self) -> dict[str, Any]:
        """The result at the next rung, after a second."""
        import numpy as np

        if "number" not in self._config:
            return {ZERO_SHOT: [], BUDGET: 0, "done": True}
        began = time.time()
        time.sleep(1)
        rung = self._rungs[self._next]
        self._next += 1
        score = 1 + 10 / rung
        seen = {"began": began, "ended": time.time(), "pid": os.getpid(), "memory": memory()}
        like_real = {"seconds": self._next, "steps": rung, "device": "cpu", "splits": [], "checkpoint": "0"}
        result = {
            BUDGET: rung,
            OBJECTIVE: score,
            "metrics": {"sql": score, "train_loss": score},
            "attributes": {**like_real, **seen, LOSSES: packed(np.full(self._losses, score))},
        }
        return {**result, "number": self._config["number"], "done": rung >= self._rungs[-1]}


def memory() -> int:
    """Bytes of this process that no other shares."""
    import psutil

    return int(psutil.Process().memory_full_info().uss)


@dataclass(frozen=True)
class Sleep:
    """One second of one slot, in Unix time."""

    began: float
    ended: float


Slots = Sequence[Sequence[Sleep]]
"""What each worker did, in the order of time."""


def efficiency(slots: Slots, count: int) -> float:
    """Share of the time of `count` slots that was slept, from the first trial's start to the last one's end."""
    return slept(slots) / (count * span(slots))


def efficiency_full(slots: Slots) -> float:
    """The same while all workers have work: from the last one's first start to the first one's last end.

    Without the start of workers, and without the end of a search, when slots are left with nothing to do; nan where
    workers began so late that there is no such time.
    """
    begin, end = max(worker[0].began for worker in slots), min(worker[-1].ended for worker in slots)
    if end <= begin:
        return math.nan
    inside = (min(sleep.ended, end) - max(sleep.began, begin) for worker in slots for sleep in worker)
    return sum(seconds for seconds in inside if seconds > 0) / (len(slots) * (end - begin))


def slept(slots: Slots) -> float:
    """Seconds of all workers together."""
    return sum(sleep.ended - sleep.began for worker in slots for sleep in worker)


def span(slots: Slots) -> float:
    """Seconds from the first start to the last end."""
    return max(worker[-1].ended for worker in slots) - min(worker[0].began for worker in slots)


def gaps(slots: Slots) -> list[float]:
    """Seconds that workers waited from the end of a report to the next beginning."""
    return [after.began - before.ended for worker in slots for before, after in pairwise(worker)]


def slots_of(reading: Reading) -> Slots:
    """From what the trials reported."""
    workers = defaultdict(list)
    for trial in reading.trials:
        for result in trial.results:
            told = result.attributes
            workers[told["pid"]].append(Sleep(told["began"], told["ended"]))
    return [sorted(worker, key=lambda sleep: sleep.began) for worker in workers.values()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code."""
    options = _options().parse_args(arguments)
    return carry_out(options, lambda: benchmark(options.slots, options.each), print_table)


def benchmark(counts: Sequence[int], each: int) -> dict[str, Any]:
    """What `--json` prints: the figures of `measure` for each number of slots."""
    return {"trials_each": each, "reports_each": REPORTS, "slots": [measure(count, each) for count in counts]}


def measure(count: int, each: int) -> dict[str, Any]:
    """One search with `count` slots and `each` trials for every one of them.

    Returns:
        Efficiencies (0 to 1, the second while all workers have work), seconds until the start of the first and of the
        last worker, milliseconds that a worker waits between two reports, those of the driver's processor and of our
        code per result, and a worker's memory in MB.

    Raises:
        ChronotuneError: So many workers do not fit into this machine's free memory.
    """
    _refuse_without_memory(count)
    with tempfile.TemporaryDirectory() as folder:
        directory, times = Path(folder) / "sweep", Times()
        recipe = recipe_of(directory, count * each)
        with started(count), connected(recipe.cluster):
            called, before = time.time(), time.process_time()
            sweep(directory, recipe, times, Sleeping)
            busy = time.process_time() - before
        reading = read(directory)
    slots, waits = slots_of(reading), gaps(slots_of(reading))
    begun = sorted(worker[0].began - called for worker in slots)
    return {
        "slots": count,
        "trials": len(reading.trials),
        "results": times.recorded,
        "workers": len(slots),
        "efficiency": efficiency(slots, count),
        "efficiency_full": efficiency_full(slots),
        "first_worker_s": begun[0],
        "last_worker_s": begun[-1],
        "seconds": span(slots),
        "wait_ms": 1000 * median(waits),
        "wait_95_ms": 1000 * sorted(waits)[int(0.95 * len(waits))],
        "driver_ms_per_result": times.ms_per_result,
        "ask_ms": times.ask_ms,
        "driver_cpu_ms_per_result": 1000 * busy / max(1, times.recorded),
        "worker_mb": median(r.attributes["memory"] / 1e6 for trial in reading.trials for r in trial.results),
    }


@contextmanager
def started(count: int) -> Iterator[None]:
    """Let a local Ray have `count` processors, whatever the machine has."""
    with patch.object(session, "usable_cpus", lambda: count):
        yield


def recipe_of(directory: Path, trials: int) -> Recipe:
    """The quickstart with ten rungs, mirrored into a database beside the sweep's folder."""
    rungs = ("early_stopping.grace=32", "early_stopping.reduction=2", f"budget.windows={32 * 2 ** (REPORTS - 1)}")
    changes = [f"budget.trials={trials}", *rungs, f"tracking.uri=sqlite:///{directory.parent}/mlflow.db"]
    return load_recipe(str(RECIPE), ["cluster=local", *changes])


def _refuse_without_memory(count: int) -> None:
    import psutil

    free = psutil.virtual_memory().available / 1e9
    if free < count * WORKER_GB:
        raise ChronotuneError(
            f"{count} workers may take {count * WORKER_GB:.0f} GB, but {free:.0f} GB are free. Give fewer --slots"
        )


def print_table(results: dict[str, Any]) -> None:
    """A line for each number of slots."""
    print(f"{results['trials_each']} trials a slot, {results['reports_each']} reports a trial, one a second")
    print("              share of slots' time    first   last worker   wait ms       driver ms a result   ask  worker")
    print("slots trials     all   all at work    starts after s     median    95%      ours    processor    ms      MB")
    for row in results["slots"]:
        print(
            f"{row['slots']:>5} {row['trials']:>6} {row['efficiency']:>7.1%} {row['efficiency_full']:>12.1%}"
            f" {row['first_worker_s']:>9.1f} {row['last_worker_s']:>8.1f} {row['wait_ms']:>10.0f}"
            f" {row['wait_95_ms']:>6.0f} {row['driver_ms_per_result']:>9.1f} {row['driver_cpu_ms_per_result']:>12.1f}"
            f" {row['ask_ms']:>5.0f} {row['worker_mb']:>7.0f}"
        )


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="+", default=SLOTS, help="to try one after the other")
    parser.add_argument("--each", type=int, default=EACH, help="trials a slot")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


if __name__ == "__main__":
    sys.exit(main())
