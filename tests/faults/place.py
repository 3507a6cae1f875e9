"""A folder with one sweep in it: begun, killed, resumed and looked at, always as processes of their own."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from moments import Moment

from chronotune.errors import ChronotuneError
from chronotune.finalists import latest
from chronotune.storage import ADDRESS, is_sweep, repair
from chronotune.stores import SCRATCH
from chronotune.study import JOURNAL, Reading, TrialRecord, read

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
        """What a dead sweep has left that its next driver must see to; its ended trials are noted for `kept`."""
        found = [word for word, pattern in LEFTOVERS.items() if list(self.sweep.glob(pattern))]
        if (reading := self.left()) is None:
            found.append(NO_STUDY)
        else:
            trials = (*reading.trials, *reading.finalists)
            count = sum(trial.state == "running" for trial in trials)
            found += [f"{count} running"] if count else []
            with (self.folder / "ended.txt").open("a") as noted:
                noted.writelines(f"{facts(trial)}\n" for trial in trials if trial.state != "running")
        return ", ".join(found) or "nothing"

    @property
    def kept(self) -> set[str]:
        """Facts of all trials that had ended whenever a driver of this sweep was dead."""
        noted = self.folder / "ended.txt"
        return set(noted.read_text().splitlines()) if noted.exists() else set()

    def left(self) -> Reading | None:
        """A dead sweep's study, as its next driver will read it; None when it was never begun.

        Raises:
            NotAsPromisedError: It cannot be read, though what a kill may leave is repaired, in a copy.
        """
        if not is_sweep(self.sweep):
            return None
        with TemporaryDirectory() as copied:
            copy = Path(copied)
            for name in filter(lambda name: (self.sweep / name).exists(), (JOURNAL, ADDRESS)):
                shutil.copyfile(self.sweep / name, copy / name)
            repair(copy)
            try:
                return read(copy)
            except ChronotuneError as error:
                if "was never begun" in str(error):
                    return None
                raise NotAsPromisedError(f"what a dead driver left cannot be read: {error}") from error

    def table(self) -> list[Any]:
        """Everything of a sweep that must not depend on what happened meanwhile: trials, finalists, winner."""
        reading = read(self.sweep)
        trials = (*reading.trials, *sorted(latest(reading.finalists), key=lambda repeat: (repeat.seed, repeat.of)))
        winner = reading.attributes.get("winner")
        return [
            *map(facts, trials),
            winner and {key: winner.get(key) for key in ("number", "seed", "score", "sha256")},
        ]

    def statuses(self) -> dict[str, int]:
        """How often each status stands in the MLflow store."""
        return dict(self._in_mlflow("select status, count(*) from active group by status order by status"))

    def points(self) -> Counter[tuple[str, str, int, float]]:
        """How often each value stands in the MLflow store: the key of its run, metric, step and value."""
        return Counter(
            self._in_mlflow(
                "select tags.value, metrics.key, step, metrics.value from metrics join active using (run_uuid) "
                "join tags using (run_uuid) where tags.key = 'chronotune.run'"
            )
        )

    def _in_mlflow(self, query: str) -> list[Any]:
        """Rows of the MLflow store, whose runs that are not deleted are `active`."""
        with closing(sqlite3.connect(self.folder / "mlflow.db")) as store:
            active = "with active as (select * from runs where lifecycle_stage = 'active')"
            return store.execute(f"{active} {query}").fetchall()


NO_STUDY = "no study"
LEFTOVERS = {
    "lease": "lease.json*",
    "lock": f"{JOURNAL}.lock*",
    "partial checkpoint": "checkpoints/**/.*.partial",
    "Tune's folder": f"checkpoints/{SCRATCH}",
}
"""What a sweep leaves only when it is cut off."""


def facts(trial: TrialRecord) -> str:
    """What a trial was and came to, on one line, to the last digit."""
    own = trial.number if trial.of is None else f"{trial.of} with seed {trial.seed}"
    results = [(result.windows_seen, dict(result.metrics)) for result in trial.results]
    return repr((own, trial.state, trial.reason, trial.hyperparameters, results))


def new_store(file: Path) -> None:
    """An MLflow database with its tables and nothing in them: they take seconds to make, so it is made once."""
    code = "import sys; from mlflow import MlflowClient; MlflowClient(tracking_uri=sys.argv[1]).search_experiments()"
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([sys.executable, "-c", code, f"sqlite:///{file}"], check=True, capture_output=True, env=environment)
