"""Real sweeps, killed for real: what each fault left behind, and whether the resumed sweep is whole.

    python tests/faults/faults.py                 the named moments, and 20 random ones: a table
    python tests/faults/faults.py --only lock     one of them
    python tests/faults/faults.py --random 5      fewer random ones

Every sweep is compared, trial by trial, with one that nobody disturbed. The tests run the named moments.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chronotune.study import JOURNAL, read

HERE = Path(__file__).parent
SETTINGS = ("budget.trials=4", "budget.stuck_minutes=0.5", "tracking.enabled=true")
"""Of the smoke recipe, beside the number of trials side by side."""


@dataclass(frozen=True)
class Moment:
    """The call of a function, and what ends when it is reached."""

    told: str
    module: str
    name: str
    call: int
    ends: str = "driver"
    times: int = 1


MOMENTS = {
    "drawing": Moment("driver, while a trial's parameters are drawn", "chronotune.search", "_suggest", 11),
    "report": Moment("driver, between checkpoint and report", "chronotune.tuner", "_Recorder.on_trial_result", 3),
    "tell": Moment("driver, between report and tell", "chronotune.study", "Study.finish", 2),
    "lock": Moment(
        "driver, while it holds the journal's lock",
        "optuna.storages.journal._file",
        "JournalFileSymlinkLock.release",
        40,
    ),
    "checkpoint": Moment("driver, inside a worker's checkpoint write", "chronotune.checkpoint", "sha256", 3),
    "worker": Moment("worker, in mid-step, twice", "chronotune.finetune", "FineTuner._loss", 6, "self", 2),
    "hang": Moment("worker hangs in native code", "chronotune.finetune", "FineTuner._loss", 6, "hang"),
    "writer": Moment("worker, inside a checkpoint write", "chronotune.checkpoint", "sha256", 3, "self"),
}


@dataclass(frozen=True)
class Outcome:
    """What a fault left behind, and what became of the sweep."""

    told: str
    kills: int
    left: str
    same: bool
    """As the undisturbed sweep: every trial, each result, to the last digit."""
    once: bool
    """Every trial is there exactly once, and has ended."""
    mlflow: str
    """Statuses of the MLflow runs."""

    def __str__(self) -> str:
        """One line of the table."""
        verdict = "identical" if self.same else "consistent" if self.once else "BROKEN"
        return f"{self.told:<46}{self.kills:>6}  {self.left:<34}{verdict:<12}{self.mlflow}"


def run(place: Path, *arguments: str, fault: Moment | None = None) -> int:
    """A command of chronotune as a process of its own; its exit code."""
    with start(place, *arguments, fault=fault) as process:
        return process.wait(timeout=300)


def start(place: Path, *arguments: str, fault: Moment | None = None) -> subprocess.Popen[str]:
    """The same, without waiting for its end; its output goes to `printed.txt`."""
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    if fault is not None:
        told = {"module": fault.module, "name": fault.name, "call": fault.call, "ends": fault.ends}
        environment["CHRONOTUNE_FAULT"] = json.dumps({**told, "times": fault.times, "marks": str(place)})
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(HERE / "inject"), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
    with (place / "printed.txt").open("a") as printed:
        command = [sys.executable, "-m", "chronotune", *arguments]
        return subprocess.Popen(command, cwd=place, env=environment, stdout=printed, stderr=printed, text=True)


def sweep(place: Path, concurrent: int, fault: Moment | None = None) -> int:
    """Begin a sweep in `place`; the exit code."""
    return run(place, *command(concurrent), fault=fault)


def command(concurrent: int) -> list[str]:
    """What begins a sweep."""
    settings = [*SETTINGS, f"cluster.max_concurrent={concurrent}"]
    return ["run", "smoke", "--dir", "sweep", *[part for setting in settings for part in ("--set", setting)]]


def table(place: Path) -> list[Any]:
    """Everything of a sweep's trials that must not depend on what happened meanwhile."""
    return [
        (
            trial.number,
            trial.state,
            trial.reason,
            trial.hyperparameters,
            [(r.windows_seen, dict(r.metrics)) for r in trial.results],
        )
        for trial in read(place / "sweep").trials
    ]


def outcome(told: str, kills: int, left: str, place: Path, whole: Sequence[Any]) -> Outcome:
    """The ended sweep in `place` beside the undisturbed one."""
    trials = table(place)
    ended = all(state in ("complete", "pruned", "failed") for _, state, *_ in trials)
    once = [number for number, *_ in trials] == list(range(len(whole))) and ended
    return Outcome(told, kills, left, trials == list(whole), once, statuses(place))


def statuses(place: Path) -> str:
    """How often each status stands in the MLflow store."""
    with closing(sqlite3.connect(place / "mlflow.db")) as store:
        found = store.execute("select status, count(*) from runs where lifecycle_stage = 'active' group by status")
        return ", ".join(f"{count} {status}" for status, count in sorted(found))


def remains(place: Path) -> str:
    """What a dead sweep has left that its next driver must see to."""
    folder = place / "sweep"
    found = []
    if (folder / "lease.json").exists():
        found.append("lease")
    if list(folder.glob(f"{JOURNAL}.lock*")):
        found.append("lock")
    if list((folder / "checkpoints").glob("*/.*.partial")):
        found.append("partial checkpoint")
    with suppress(Exception):
        found += [f"{sum(state == 'running' for _, state, *_ in table(place))} running"]
    return ", ".join(found) or "nothing"


def at(name: str, place: Path, whole: Sequence[Any], concurrent: int = 1) -> Outcome:
    """Run a sweep with one of `MOMENTS`, and resume it if its driver died."""
    moment = MOMENTS[name]
    code = sweep(place, concurrent, moment)
    kills, left = len(list(place.glob("fault-*"))), "nothing"
    if moment.ends == "driver":
        assert code == -signal.SIGKILL, f"{moment.told}: the driver ended with {code}, see {place}/printed.txt"
        left = remains(place)
        code = run(place, "resume", "sweep")
    assert code == 0, (place / "printed.txt").read_text()
    return outcome(moment.told, kills, left, place, whole)


def at_random(count: int, place: Path, whole: Sequence[Any], concurrent: int, seed: int = 0) -> Outcome:
    """Kill a sweep again and again, each time after a random time, and let it end at last."""
    chance = random.Random(seed)
    arguments, left = command(concurrent), set()
    kills = 0
    while kills < count:
        with start(place, *arguments) as process:
            deadline = time.monotonic() + chance.uniform(0, 20)
            while time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.05)
            if process.poll() is not None:
                break  # it has ended before its time came
            process.kill()
        kills += 1
        left.add(remains(place))
        if (place / "sweep" / JOURNAL).exists() and readable(place):
            arguments = ["resume", "sweep"]
        else:  # killed before there was anything to resume
            subprocess.run(["rm", "-rf", str(place / "sweep")], check=True)
    code = run(place, *arguments)
    assert code == 0, (place / "printed.txt").read_text()
    return outcome(f"driver, at {kills} random moments", kills, f"{len(left)} different states", place, whole)


def readable(place: Path) -> bool:
    """Whether a study was begun."""
    try:
        read(place / "sweep")
    except Exception:
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit 1 when a sweep is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*MOMENTS, "random"], default=[*MOMENTS, "random"])
    parser.add_argument("--random", type=int, default=20, help="random moments")
    parser.add_argument("--concurrent", type=int, nargs="+", default=[1, 2], help="trials side by side")
    options = parser.parse_args(arguments)
    good = True
    for concurrent in options.concurrent:
        with tempfile.TemporaryDirectory() as folder:
            print(f"\n{concurrent} at once" + " " * 37 + f"{'kills':>6}  {'left behind':<34}{'afterwards':<12}MLflow")
            (place := Path(folder) / "whole").mkdir()
            assert sweep(place, concurrent) == 0, (place / "printed.txt").read_text()
            whole = table(place)
            for name in options.only:
                (place := Path(folder) / name).mkdir()
                if name == "random":
                    done = at_random(options.random, place, whole, concurrent)
                else:
                    done = at(name, place, whole, concurrent)
                print(done, flush=True)
                good = good and (done.same if concurrent == 1 else done.once) and "RUNNING" not in done.mlflow
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
