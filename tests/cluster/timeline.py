"""A sweep on a real cluster whose nodes are lost and added while it runs, submitted from outside; prints its timeline.

    python tests/cluster/timeline.py                    head, two nodes, one killed, one added, one told to go
    python tests/cluster/timeline.py --services         its study in PostgreSQL, checkpoints in an S3-compatible store,
                                                        MLflow on a server, each started here
    python tests/cluster/timeline.py --lose-head        the same, and the head lost at the end: resume on a new cluster
    python tests/cluster/timeline.py --set KEY=VALUE    any key of the recipe: its study in a database, an MLflow server

Every process is started here, with folders and ports of its own, and ended by its id.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from machines import Machines
from services import Services, faults_of_runs, faults_of_store

from chronotune.errors import ChronotuneError
from chronotune.study import Reading, read

NAME = "timeline"
SETTINGS = ("budget.trials=10", "budget.windows=6000", "early_stopping.grace=1000", "tracking.enabled=false")
"""Of the smoke recipe: trials that live long enough to lose their node, and spend their time in slices, not between."""


class Timeline:
    """Prints what happens, with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """One line."""
        print(f"{time.monotonic() - self._began:7.1f} s  {text}", flush=True)

    def until(self, what: str, happened: Callable[[], bool], seconds: float = 600) -> None:
        """Wait for something, then say that it has happened."""
        until = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > until:
                raise SystemExit(f"{what}: not within {seconds:.0f} seconds")
            time.sleep(0.5)
        self.say(what)


def profile(machines: Machines, sweeps: Path, place: Path) -> Path:
    """A profile of kind existing for these machines."""
    path = place / "machines.yaml"
    path.write_text(
        f"name: machines\nkind: existing\naddress: {machines.address}\nsweeps: {sweeps}\ngpus_per_trial: 0\n"
    )
    return path


def reading(directory: Path) -> Reading | None:
    """The sweep as its study has it; None before there is one."""
    try:
        return read(directory)
    except ChronotuneError:
        return None


def results(directory: Path) -> int:
    """How many results the study has."""
    now = reading(directory)
    return sum(len(trial.results) for trial in now.trials) if now else 0


def ended(directory: Path) -> bool:
    """Whether the sweep has been evaluated, which is its last act."""
    now = reading(directory)
    return now is not None and now.evaluation is not None


def verdict(directory: Path, wanted: int) -> list[str]:
    """What is wrong with an ended sweep."""
    now = reading(directory)
    if now is None:
        return ["there is no study"]
    numbers = [trial.number for trial in now.trials]
    twice = [
        f"trial {trial.number} has a rung twice"
        for trial in now.trials
        if max(Counter(r.windows_seen for r in trial.results).values(), default=1) > 1
    ]
    unended = [f"trial {t.number} is {t.state}" for t in now.trials if t.state not in ("complete", "pruned")]
    missing = [] if numbers == list(range(wanted)) else [f"trials are {numbers}, not 0 to {wanted - 1}"]
    unevaluated = [] if now.evaluation else ["it was not evaluated"]
    return [*missing, *twice, *unended, *unevaluated]


def told(directory: Path, pattern: str) -> int:
    """How often the trials' logs say so."""
    return sum(len(re.findall(pattern, log.read_text())) for log in (directory / "logs").rglob("*.log"))


def unclaimed(directory: Path) -> list[str]:
    """Trials that another worker did not take up where one that was told to go had left them."""
    lost = []
    for log in sorted((directory / "logs").rglob("*.log")):
        for part in log.read_text().split("told to go: ")[1:]:
            kept = int(part.split()[0])
            if kept and f"goes on from {kept} windows" not in part:
                lost.append(f"trial {log.stem} did not go on from the {kept} windows that were kept")
    return lost


def pids_of(node: psutil.Popen) -> set[int]:
    """Of all processes of a node."""
    return {process.pid for process in node.children(recursive=True)}


def trains(directory: Path, pids: set[int]) -> bool:
    """Whether one of these processes has brought a trial to a rung."""
    for log in (directory / "logs").rglob("*.log"):
        for part in log.read_text().split("runs in process ")[1:]:
            if int(part.split()[0]) in pids and " windows, " in part:
                return True
    return False


COMMAND = (sys.executable, "-m", "chronotune")


class Play:
    """The acts of the story, each a few processes and what must come of them."""

    def __init__(self, place: Path, machines: Machines) -> None:
        self.line, self.machines = Timeline(), machines
        self.sweeps, self.outside = place / "shared" / "sweeps", place / "outside"
        self.outside.mkdir()
        self.directory = self.sweeps / NAME
        self.wrong: list[str] = []
        """What was not as it must be."""

    def call(self, *arguments: str, seconds: float = 900) -> int:
        """A command from outside, to its end; its exit code."""
        return self.machines.run(*COMMAND, *arguments, cwd=self.outside).wait(timeout=seconds)

    def must(self, what: str, holds: bool) -> None:
        """Say something that has been found out, and remember it when it is wrong."""
        self.line.say(what)
        if not holds:
            self.wrong.append(what)

    def ends_well(self, what: str, *arguments: str) -> None:
        """A command from outside whose exit code must be 0."""
        code = self.call(*arguments)
        self.must(f"{what}: exit {code}", code == 0)

    def begin(self) -> None:
        """A head and two nodes; who has no token is sent away."""
        self.machines.head()
        answers = [self.machines.answer(token) for token in (None, "wrong", self.machines.token)]
        told = "head up; without a token, with a wrong one, with its own: HTTP {}, {}, {}".format(*answers)
        self.must(told, answers == [401, 403, 200])
        self.machines.add("a")
        self.machines.add("b")
        self.line.say("nodes a and b started, 1 CPU each")

    def submit(self, settings: Sequence[str]) -> None:
        """From outside, by a terminal that does not stay."""
        options = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
        cluster = str(profile(self.machines, self.sweeps, self.outside))
        run = ("run", "smoke", "--cluster", cluster, "--dir", NAME, *options)
        client = self.machines.run(*COMMAND, *run, cwd=self.outside)
        self.line.say("submitted from outside: chronotune run smoke --cluster machines.yaml")
        self.line.until("the first results are in the study", lambda: self.results >= 2 or client.poll() is not None)
        if client.poll() is not None:
            raise SystemExit((self.outside / "printed.txt").read_text()[-1000:])
        client.kill()
        client.wait()
        self.line.say("the submitting terminal is gone (SIGKILL)")
        self.ends_well("chronotune status finds the sweep again", "status", NAME)

    def lose_a_node(self) -> None:
        """And get another."""
        self.machines.kill("b")
        before = self.results
        self.line.say("node b SIGKILLed, all its processes at once")
        self.machines.add("c")
        self.line.say("node c started")
        self.line.until("results go on", lambda: self.results > before + 2)

    def be_noticed(self) -> None:
        """A spot market tells node c that it goes; its worker keeps what it has done.

        Where the notice comes between two slices of training there is nothing to keep: then the next node is told,
        as long as the sweep goes on.
        """
        kept = 0
        for going, coming in (("c", "d"), ("d", "g"), ("g", "h")):
            self.machines.add(coming)
            self.line.say(f"node {coming} started")
            if not self._send_away(going) or (kept := told(self.directory, "told to go: [1-9]")):
                break
        self.must(f"workers that kept their work before they went: {kept}", kept > 0)

    def _send_away(self, name: str) -> bool:
        """False when the sweep was over before the node had work."""
        node = self.machines.nodes[name]
        works = f"a worker on node {name} trains, or the sweep has ended"
        self.line.until(works, lambda: trains(self.directory, pids_of(node)) or ended(self.directory))
        if ended(self.directory):
            return False
        self.machines.notice(name)
        self.line.say(f"node {name} gets SIGTERM")
        self.line.until(f"node {name} has ended in order", lambda: node.poll() is not None, 120)
        return True

    def lose_the_head(self) -> None:
        """With all nodes and the driver; the sweep goes on on a new cluster at the same address."""
        for name in list(self.machines.nodes):
            self.machines.kill(name)
        self.line.say(f"head, driver and all nodes SIGKILLed; {self.results} results are in the study")
        self.machines.head()
        self.machines.add("e")
        self.machines.add("f")
        self.line.say("a new head, nodes e and f")
        self.ends_well("chronotune resume, followed to the end", "resume", NAME)

    def follow(self) -> None:
        """To the end, from outside."""
        self.ends_well("chronotune attach, followed to the end", "attach", NAME)

    @property
    def results(self) -> int:
        """How many the study has."""
        return results(self.directory)


def outside_verdict(directory: Path, services: Services, wanted: int) -> list[str]:
    """What is wrong with what an ended sweep left on its services."""
    now = read(directory)
    winner = f"{now.attributes['winner']['number']:04d}/{now.attributes['winner']['windows_seen']}"
    journal = ["there is a journal"] if (directory / "study.journal").exists() else []
    studies = [] if services.studies() == [NAME] else [f"the database has the studies {services.studies()}"]
    store = faults_of_store(services.objects.kept(NAME), directory, winner)
    return [*journal, *studies, *store, *faults_of_runs(services.runs(), wanted)]


def judge(story: Play, wanted: int, services: Services | None) -> list[str]:
    """Say how the sweep has ended; all that was wrong."""
    unsound = [*verdict(story.directory, wanted), *unclaimed(story.directory)]
    story.line.say("; ".join(unsound) or "every trial exactly once, evaluated; what was kept was taken up")
    if services and not unsound:
        unsound = outside_verdict(story.directory, services, wanted)
        told = "study in PostgreSQL, {} objects in the bucket, {} runs in MLflow, none running"
        sound = told.format(len(services.objects.kept(NAME)), len(services.runs()))
        story.line.say("; ".join(unsound) or sound)
    wrong = [*story.wrong, *unsound]
    story.line.say("all as it must be" if not wrong else f"wrong: {'; '.join(wrong)}")
    return wrong


def play(place: Path, settings: Sequence[str], wanted: int, *, head: bool, outside: bool) -> list[str]:
    """The whole story; what was wrong at its end."""
    with contextlib.ExitStack() as stack:
        services = stack.enter_context(Services(place)) if outside else None
        machines = stack.enter_context(Machines(place, services.variables if services else {}))
        story = Play(place, machines)
        if services:
            story.line.say("PostgreSQL, an S3-compatible store and MLflow answer")
        story.begin()
        story.submit([*settings, *(services.settings if services else ())])
        story.lose_a_node()
        story.be_noticed()
        if head:
            story.lose_the_head()
        else:
            story.follow()
        story.line.say(f"workers that died: {told(story.directory, 'its worker died')}")
        return judge(story, wanted, services)


def main() -> int:
    """Run it; 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--keep", action="store_true", help="leave logs and the sweep behind, and say where")
    parser.add_argument("--services", action="store_true", help="with PostgreSQL, an S3-compatible store and MLflow")
    parser.add_argument("--lose-head", action="store_true", help="lose the head too, and resume on a new cluster")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="timeline-"))
    wanted = next((int(s.partition("=")[2]) for s in arguments.settings if s.startswith("budget.trials=")), 10)
    wrong = play(place, arguments.settings, wanted, head=arguments.lose_head, outside=arguments.services)
    if arguments.keep or wrong:
        print(f"left in {place}")
    else:
        shutil.rmtree(place, ignore_errors=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
