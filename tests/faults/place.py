"""A folder with one sweep in it: begun, killed, resumed and looked at, always as processes of their own."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from moments import Moment

from chronotune.errors import InputError
from chronotune.finalists import latest
from chronotune.storage import ADDRESS, is_sweep, repair
from chronotune.stores import SCRATCH
from chronotune.study import JOURNAL, Reading, read

INJECT = Path(__file__).parent / "inject"
SETTINGS = (
    "budget.trials=4",
    "budget.stuck_minutes=1",
    "finalists.top=1",
    "finalists.seeds=2",
    "tracking.enabled=true",
)
"""Of the smoke recipe, beside the number of trials side by side."""
PATIENCE = 400
"""Seconds that a process may take; an undisturbed sweep takes a tenth of it."""


class NotAsPromisedError(AssertionError):
    """A process ended in another way than it should; its output goes with it."""


@dataclass(frozen=True)
class Place:
    """A user's working directory, whose only sweep is `sweep`."""

    folder: Path
    concurrent: int = 1
    settings: tuple[str, ...] = ()
    """Of the recipe, beside `SETTINGS`."""

    @property
    def sweep(self) -> Path:
        """The sweep's folder."""
        return self.folder / "sweep"

    @property
    def printed(self) -> str:
        """What all processes have printed here."""
        return (self.folder / "printed.txt").read_text()

    @property
    def command(self) -> list[str]:
        """What begins the sweep."""
        settings = [*SETTINGS, f"cluster.max_concurrent={self.concurrent}", *self.settings]
        return ["run", "smoke", "--dir", "sweep", *[part for setting in settings for part in ("--set", setting)]]

    def start(self, *arguments: str, fault: Moment | None = None) -> subprocess.Popen[str]:
        """A command of chronotune as a process; without arguments, what begins the sweep."""
        command = [sys.executable, "-m", "chronotune", *(arguments or self.command)]
        return self.start_process(command, fault)

    def start_process(self, command: list[str], fault: Moment | None = None) -> subprocess.Popen[str]:
        """Any command as a process whose output goes to `printed.txt`; on a busy machine nice workers would starve."""
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "RAY_worker_niceness": "0"}
        if fault is not None:
            paths = [str(INJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
            environment |= {"CHRONOTUNE_FAULT": fault.environment(self.folder), "PYTHONPATH": os.pathsep.join(paths)}
        with (self.folder / "printed.txt").open("a") as printed:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=printed, stderr=printed, text=True
            )

    def run(self, *arguments: str, code: int = 0, fault: Moment | None = None) -> str:
        """`start`, and wait for its end; what it printed.

        Raises:
            NotAsPromisedError: Its exit code is not `code`.
        """
        before = len(self.printed) if (self.folder / "printed.txt").exists() else 0
        with self.start(*arguments, fault=fault) as process:
            self.wait(process, code)
        return self.printed[before:]

    def wait(self, process: subprocess.Popen[str], code: int = 0) -> None:
        """Wait for the end of a process.

        Raises:
            NotAsPromisedError: It does not end, or its exit code is not `code`.
        """
        try:
            ended = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise NotAsPromisedError(f"no end after {PATIENCE} seconds:\n{self.printed}") from None
        if ended != code:
            raise NotAsPromisedError(f"exit code {ended}, not {code}:\n{self.printed}")

    def until(self, process: subprocess.Popen[str], seen: Callable[[Reading], bool]) -> None:
        """Wait until the study of a running sweep is as wanted.

        Raises:
            NotAsPromisedError: The process has ended before, or it takes too long.
        """
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(Exception):  # there is no study yet
                if seen(read(self.sweep)):
                    return
            time.sleep(0.05)
        process.kill()
        raise NotAsPromisedError(f"the moment never came:\n{self.printed}")

    def copy_from(self, other: Place) -> Place:
        """Take over everything of another place, its addresses too."""
        shutil.copytree(other.folder, self.folder, dirs_exist_ok=True)
        recipe = self.sweep / "recipe.yaml"
        recipe.write_text(recipe.read_text().replace(str(other.folder), str(self.folder)))
        return self

    @property
    def kills(self) -> int:
        """How often a named moment was reached."""
        return len(list(self.folder.glob("fault-*")))

    def remains(self) -> str:
        """What a dead sweep has left that its next driver must see to."""
        found = [word for word, pattern in LEFTOVERS.items() if list(self.sweep.glob(pattern))]
        with suppress(Exception):
            reading = read(self.sweep)
            count = sum(trial.state == "running" for trial in (*reading.trials, *reading.finalists))
            found += [f"{count} running"] if count else []
        return ", ".join(found) or "nothing"

    def has_study(self) -> bool:
        """Whether a dead sweep's study was begun; one that its next driver could not read is no reason to say no.

        Raises:
            InputError: It cannot be read, though what a kill may leave is repaired, in a copy.
        """
        if not is_sweep(self.sweep):
            return False
        with TemporaryDirectory() as copied:
            copy = Path(copied)
            for name in filter(lambda name: (self.sweep / name).exists(), (JOURNAL, ADDRESS)):
                shutil.copyfile(self.sweep / name, copy / name)
            repair(copy)
            try:
                read(copy)
            except InputError as error:
                if "was never begun" in str(error):
                    return False
                raise
        return True

    def table(self) -> list[Any]:
        """Everything of a sweep that must not depend on what happened meanwhile: trials, finalists, winner."""
        reading = read(self.sweep)
        trials = (*reading.trials, *sorted(latest(reading.finalists), key=lambda repeat: (repeat.seed, repeat.of)))
        winner = reading.attributes.get("winner")
        return [
            *map(_facts, trials),
            winner and {key: winner.get(key) for key in ("number", "seed", "score", "sha256")},
        ]

    def statuses(self) -> dict[str, int]:
        """How often each status stands in the MLflow store."""
        with closing(sqlite3.connect(self.folder / "mlflow.db")) as store:
            found = store.execute("select status, count(*) from runs where lifecycle_stage = 'active' group by status")
            return dict(sorted(found))


LEFTOVERS = {
    "lease": "lease.json*",
    "lock": f"{JOURNAL}.lock*",
    "partial checkpoint": "checkpoints/**/.*.partial",
    "Tune's folder": f"checkpoints/{SCRATCH}",
}
"""What a sweep leaves only when it is cut off."""


def _facts(trial: Any) -> tuple[Any, ...]:
    own = trial.number if trial.of is None else f"{trial.of} with seed {trial.seed}"
    results = [(result.windows_seen, dict(result.metrics)) for result in trial.results]
    return own, trial.state, trial.reason, trial.hyperparameters, results


def new_store(file: Path) -> None:
    """An MLflow database with its tables and nothing in them: they take seconds to make, so it is made once."""
    code = "import sys; from mlflow import MlflowClient; MlflowClient(tracking_uri=sys.argv[1]).search_experiments()"
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([sys.executable, "-c", code, f"sqlite:///{file}"], check=True, capture_output=True, env=environment)
