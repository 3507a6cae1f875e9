"""Real sweeps, harmed for real: what each fault left behind, and whether the sweep is whole in the end.

    python tests/faults/faults.py                       all faults: a table
    python tests/faults/faults.py --only lock ctrl-c    some of them
    python tests/faults/faults.py --random 5            fewer random kills
    python tests/faults/faults.py --json > FILE         as JSON, a line for each fault as soon as it is over
    python tests/faults/faults.py --readme FILE ...     nothing is run: the table of README.md from such files

One trial at a time, a sweep must end as one that nobody disturbed: every trial and finalist, each result to the last
digit, the winner's weights to the last byte. Where that cannot be (two at once, a trial that fails), it must be
consistent: every trial exactly once, ended, none left running in study or MLflow, nothing left on disk. Exit 1 when a
fault is not survived as promised. The tests run a few of them.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import drivers
import outside
import world
from judge import Outcome, Story, Verdict, outcome
from moments import EXTENDED, EXTENDING, MOMENTS, NAN, RAISES, THRICE
from place import NotAsPromisedError, Place, new_store


class Ground:
    """Where the faults happen: a folder with a place for each, and with the undisturbed sweep to compare with."""

    def __init__(self, folder: Path, random_kills: int = 20) -> None:
        self.folder, self.random_kills = folder, random_kills

    def place(self, name: str, concurrent: int = 1) -> Place:
        """A new place, whose MLflow database is there already."""
        place = Place(self.folder / name, concurrent)
        shutil.rmtree(place.folder, ignore_errors=True)
        place.folder.mkdir(parents=True)
        shutil.copy(self._store, place.folder / "mlflow.db")
        return place

    def whole(self, concurrent: int = 1) -> Place:
        """The undisturbed sweep; it is made once."""
        return self._made(f"whole-{concurrent}", lambda name: self.place(name, concurrent), ())

    def extended(self) -> Place:
        """The undisturbed sweep, extended by a trial without being disturbed in that either."""
        return self._made("whole-extended", self.copied, ("resume", "sweep", "--trials", "+1"))

    def copied(self, name: str) -> Place:
        """A new place with the finished, undisturbed sweep."""
        return self.place(name).copy_from(self.whole())

    def seconds(self, concurrent: int) -> float:
        """How long an undisturbed sweep takes."""
        return float((self.whole(concurrent).folder / "seconds").read_text())

    def _made(self, name: str, begun: Callable[[str], Place], command: Sequence[str]) -> Place:
        """The place `name` after an undisturbed command; one that a former run of this script has made will do."""
        if (self.folder / name / "seconds").exists():
            return Place(self.folder / name)
        place, began = begun(name), time.monotonic()
        place.run(*command)
        (place.folder / "seconds").write_text(str(time.monotonic() - began))
        return place

    @functools.cached_property
    def _store(self) -> Path:
        if not (file := self.folder / "empty.db").exists():
            new_store(file)
        return file


@dataclass(frozen=True)
class Fault:
    """One row of the table."""

    told: str
    happen: Callable[[Ground, str], Story]
    promise: Verdict = "identical"
    failures: int = 0
    extended: bool = False
    """Whether it is compared with the extended sweep."""


def _simple(happen: Callable[[Place], Story]) -> Callable[[Ground, str], Story]:
    return lambda ground, name: happen(ground.place(name))


def _moment(moment: Any, concurrent: int = 1) -> Callable[[Ground, str], Story]:
    return lambda ground, name: drivers.at_moment(ground.place(name, concurrent), moment)


def _extension(moment: Any) -> Callable[[Ground, str], Story]:
    return lambda ground, name: drivers.an_extension(ground.copied(name), moment)


def _random(concurrent: int) -> Callable[[Ground, str], Story]:
    def happen(ground: Ground, name: str) -> Story:
        return drivers.at_random(
            ground.random_kills,
            lambda number: ground.place(f"{name}/{number}", concurrent),
            ground.seconds(concurrent),
            seed=concurrent,
        )

    return happen


def _signals(name: str) -> Callable[[Ground, str], Story]:
    return _simple(lambda place: drivers.interrupted(place, drivers.SIGNALS[name]))


def _outage(back: str) -> Callable[[Ground, str], Story]:
    return _simple(lambda place: world.mlflow_outage(place, back))


FAULTS: dict[str, Fault] = {
    **{name: Fault(moment.told, _moment(moment)) for name, moment in MOMENTS.items()},
    "two-at-once": Fault("driver, before a report, 2 trials at a time", _moment(MOMENTS["report"], 2), "consistent"),
    "thrice": Fault(THRICE.told, _moment(THRICE), "consistent", 1),
    "lost-repeat": Fault("worker of a finalist's repeat, thrice", _simple(drivers.a_lost_repeat), "identical", 1),
    "extending": Fault(EXTENDING.told, _extension(EXTENDING), extended=True),
    "extended": Fault(EXTENDED.told, _extension(EXTENDED), extended=True),
    "random-1": Fault("driver, at random, 1 trial at a time", _random(1)),
    "random-2": Fault("driver, at random, 2 trials at a time", _random(2), "consistent"),
    "sigterm": Fault("SIGTERM", _signals("sigterm")),
    "ctrl-c": Fault("Ctrl-C twice", _signals("ctrl-c")),
    "two-resumes": Fault("two processes resume one sweep", _simple(drivers.two_resumes)),
    "nan": Fault(NAN.told, _moment(NAN), "consistent", 1),
    "raise": Fault(RAISES.told, _moment(RAISES), "consistent", 1),
    "torn-line": Fault("a torn journal line", _simple(world.torn_line)),
    "checkpoints": Fault("a trial's checkpoints are corrupted", _simple(world.damaged_checkpoints)),
    "winner-checkpoint": Fault("the winner's checkpoint is corrupted", _simple(world.damaged_winner)),
    "all-checkpoints": Fault("all checkpoints are corrupted", _simple(world.damaged_everything), "consistent"),
    "disk": Fault("disk full while a checkpoint is written", _simple(world.full_disk_at_a_checkpoint)),
    "disk-journal": Fault("disk full while the study is written", _simple(world.full_disk_at_the_journal)),
    "mlflow": Fault("MLflow server killed, back in mid-sweep", _outage("early"), "consistent"),
    "mlflow-late": Fault("MLflow server killed, back after the end", _outage("late")),
    "changed": Fault("resumed with other data, recipe, model", _simple(world.changed_inputs)),
    "postgresql-driver": Fault("study in PostgreSQL: driver, SIGKILL", _simple(outside.killed_driver)),
    "postgresql-server": Fault("study in PostgreSQL: server, for 5 seconds", _simple(outside.restarted_server)),
    "postgresql-lost": Fault("study in PostgreSQL: server, for too long", _simple(outside.lost_server)),
    "dashboard": Fault("no fault: optuna-dashboard looks in", _simple(outside.dashboard)),
    "node": Fault("a node is removed, another added", _simple(world.lost_node)),
}


def endure(name: str, ground: Ground) -> Outcome:
    """Let a fault happen, and judge what is left."""
    fault = FAULTS[name]
    try:
        story = fault.happen(ground, name)
        whole = (ground.extended() if fault.extended else ground.whole()).table()
    except NotAsPromisedError as error:
        return Outcome(name, fault.told, "see below", 0, "", "BROKEN", survived=False, broken=str(error))
    except world.IMPOSSIBLE as error:
        return Outcome(name, fault.told, str(error), 0, "", "not run", survived=True)
    return outcome(name, fault.told, story, fault.promise, fault.failures, whole)


HEAD = (
    f"{'fault':<18}{'what':<43}{'kills':>5}  {'what happened':<52}{'left behind':<36}"
    f"{'complete/pruned/failed/running':<32}{'in the end':<12}MLflow"
)


def row(done: Outcome) -> str:
    """A line of the table."""
    states = f"{done.complete}/{done.pruned}/{done.failed}/{done.running}"
    line = (
        f"{done.name:<18}{done.told:<43}{done.kills:>5}  {done.happened:<52}{done.left:<36}"
        f"{states:<32}{done.verdict:<12}{done.mlflow}"
    )
    return line if done.survived else f"{line}\n  NOT AS PROMISED: {done.broken}"


README_HEAD = "| fault | kills | what happened | left behind | complete/pruned/failed/running | in the end |"


def readme(lines: Iterable[str]) -> str:
    """The table of README.md, in the order of `FAULTS`, from lines of `--json`; of several of one fault the last."""
    outcomes = {done.name: done for done in (Outcome(**json.loads(line)) for line in lines)}
    rows = (
        f"| {done.told} | {done.kills} | {done.happened} | {done.left} "
        f"| {done.complete}/{done.pruned}/{done.failed}/{done.running} | {done.verdict} |"
        for done in (outcomes[name] for name in FAULTS if name in outcomes)
    )
    return "\n".join([README_HEAD, "|---" * 6 + "|", *rows])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit 1 when a fault was not survived as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="NAME")
    parser.add_argument("--random", type=int, default=20, help="random kills, of each kind")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--keep", type=Path, help="a folder for the sweeps, which stay there; else they are removed")
    parser.add_argument("--readme", nargs="+", type=Path, metavar="FILE", help="what --json printed, as a table")
    options = parser.parse_args(arguments)
    if options.readme:
        print(readme(line for file in options.readme for line in file.read_text().splitlines()))
        return 0
    if not options.json:
        print(HEAD)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        ground = Ground((options.keep or Path(folder)).resolve(), options.random)
        outcomes = []
        for name in options.only:
            outcomes.append(done := endure(name, ground))
            print(json.dumps(asdict(done)) if options.json else row(done), flush=True)
    return 0 if all(done.survived for done in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
