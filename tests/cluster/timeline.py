"""A sweep on a real cluster whose nodes are lost and added while it runs, submitted from outside; prints its timeline.

    python tests/cluster/timeline.py                    head, two nodes, one killed, one added
    python tests/cluster/timeline.py --set KEY=VALUE    any key of the recipe: its study in a database, an MLflow server

Every process is started here, with folders and ports of its own, and ended by its id.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from machines import Machines

from chronotune.errors import ChronotuneError
from chronotune.study import Reading, read

NAME = "timeline"
SETTINGS = ("budget.trials=8", "budget.windows=1200", "early_stopping.grace=200", "tracking.enabled=false")
"""Of the smoke recipe: trials that live long enough to lose their node."""


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


def deaths(directory: Path) -> int:
    """How often a trial's log tells that its worker died."""
    return sum(log.read_text().count("its worker died") for log in (directory / "logs").glob("*.log"))


def play(place: Path, settings: Sequence[str], wanted: int) -> list[str]:
    """The whole story; what was wrong at its end."""
    line, sweeps, outside = Timeline(), place / "shared" / "sweeps", place / "outside"
    outside.mkdir()
    directory = sweeps / NAME
    with Machines(place) as machines:
        machines.head()
        line.say(
            f"head up; the dashboard answers {machines.answer(None)} without a token, "
            f"{machines.answer('wrong')} with a wrong one, {machines.answer(machines.token)} with its own"
        )
        machines.add("a")
        machines.add("b")
        line.say("nodes a and b started, 1 CPU each")
        options = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
        cluster = str(profile(machines, sweeps, outside))
        command = [sys.executable, "-m", "chronotune"]
        run = ("run", "smoke", "--cluster", cluster, "--dir", NAME)
        client = machines.run(*command, *run, *options, cwd=outside)
        line.say("submitted from outside: chronotune run --cluster machines.yaml")
        line.until("the first results are in the study", lambda: results(directory) >= 2 or client.poll() is not None)
        client.kill()
        client.wait()
        line.say("the submitting terminal is gone (SIGKILL)")
        told = machines.run(*command, "status", NAME, cwd=outside)
        line.say(f"chronotune status finds it again: exit {told.wait()}")
        machines.kill("b")
        line.say("node b SIGKILLed, all its processes at once")
        before = results(directory)
        machines.add("c")
        line.say("node c started")
        line.until("results go on", lambda: results(directory) > before + 2)
        follower = machines.run(*command, "attach", NAME, cwd=outside)
        line.say(f"chronotune attach: followed to the end, exit {follower.wait(timeout=900)}")
        line.say(f"workers that died: {deaths(directory)}")
    wrong = verdict(directory, wanted)
    line.say("every trial exactly once, evaluated" if not wrong else "; ".join(wrong))
    return wrong


def main() -> int:
    """Run it; 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--keep", action="store_true", help="leave logs and the sweep behind, and say where")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="timeline-"))
    wanted = next((int(s.partition("=")[2]) for s in arguments.settings if s.startswith("budget.trials=")), 8)
    wrong = play(place, arguments.settings, wanted)
    if arguments.keep or wrong:
        print(f"left in {place}")
    else:
        import shutil

        shutil.rmtree(place, ignore_errors=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
