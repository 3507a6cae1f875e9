"""Faults of the driver and of the workers: killed, interrupted, hanging, failing, two at once."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from judge import Story
from moments import EXTENDING, LOST, Moment
from place import NO_STUDY, PATIENCE, NotAsPromisedError, Place

from chronotune.finalists import any_lost
from chronotune.study import Reading, read


def first_result(reading: Reading) -> bool:
    """The first trial has reported."""
    return bool(reading.trials) and bool(reading.trials[0].results)


def at_moment(place: Place, moment: Moment) -> Story:
    """Run a sweep with a fault at a named moment, and resume it if its driver died."""
    if moment.ends != "driver":
        place.run(fault=moment)
        see_that_it_happened(place, moment)
        return Story("goes on by itself", (place,), kills=place.kills)
    place.run(code=-signal.SIGKILL, fault=moment)
    left = place.remains()
    place.run("resume", "sweep")
    return Story("killed, resumed", (place,), left, place.kills)


def see_that_it_happened(place: Place, moment: Moment) -> None:
    """It did, as often as it should, and only trials failed that were to, for that reason."""
    if place.kills != moment.times:
        raise NotAsPromisedError(f"it should happen {moment.times} times, but did {place.kills}:\n{place.printed}")
    reasons = [trial.reason for trial in read(place.sweep).trials if trial.reason]
    if bool(reasons) != bool(moment.fails) or any(moment.fails not in reason for reason in reasons):
        raise NotAsPromisedError(f"trials should fail with {moment.fails!r}, but did with {reasons}")


def a_lost_repeat(place: Place) -> Story:
    """A finalist's worker dies once too often: the sweep ends without that repeat, and resume makes it good."""
    place.run(fault=LOST)
    see_that_it_happened(place, LOST)
    if not any_lost(read(place.sweep)):
        raise NotAsPromisedError(f"no repeat was lost:\n{place.printed}")
    place.run("resume", "sweep")
    return Story("ends without that repeat, resume trains it", (place,), "1 repeat failed", place.kills)


def an_extension(place: Place, moment: Moment) -> Story:
    """`resume --trials +1` of the finished sweep in `place`, killed at its beginning."""
    place.run("resume", "sweep", "--trials", "+1", code=-signal.SIGKILL, fault=moment)
    left = place.remains()
    again = ("--trials", "+1") if moment is EXTENDING else ()
    place.run("resume", "sweep", *again)
    return Story(f"killed, {' '.join(('resume', *again))}", (place,), left, place.kills)


def interrupted(place: Place, signals: tuple[signal.Signals, ...]) -> Story:
    """A sweep gets signals, half a second apart, after its first result; then it is resumed."""
    with place.start() as process:
        place.until(process, first_result)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.5)
        place.wait(process, 130)
    left = place.remains()
    if "lease" in left:
        raise NotAsPromisedError(f"it should end in order, but leaves {left}")
    place.run("resume", "sweep")
    return Story("ends in order with code 130, resumed", (place,), left, len(signals))


def killed_at_first_result(place: Place, fault: Moment | None = None) -> str:
    """A sweep whose driver dies by SIGKILL when the first result is recorded; what it left."""
    with place.start(fault=fault) as process:
        place.until(process, first_result)
        process.kill()
    return place.remains()


def two_resumes(place: Place) -> Story:
    """Two processes resume one sweep at the same time: one drives, the other is told who does."""
    left = killed_at_first_result(place)
    both = [place.start("resume", "sweep") for _ in range(2)]
    for process in both:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    codes = sorted(process.returncode for process in both)
    if codes != [0, 2] or "one driver at a time" not in place.printed:
        raise NotAsPromisedError(f"exit codes {codes}:\n{place.printed}")
    return Story("one drives, the other is refused", (place,), left)


def at_random(count: int, new_place: Callable[[int], Place], seconds: float, seed: int = 0) -> Story:
    """SIGKILL at random moments, again and again, of one sweep after the other.

    Args:
        count: Kills in all.
        new_place: Makes the place of the next sweep.
        seconds: How long an undisturbed sweep takes: each kill comes at a moment of that, counted from its start.
        seed: Of the moments.
    """
    chance, kills = random.Random(seed), 0
    places: list[Place] = []
    left = Counter[str]()
    while kills < count:
        place = new_place(len(places))
        kills += _killed_to_the_end(place, chance, seconds, count - kills, left)
        places.append(place)
    early = sum(count for what, count in left.items() if NO_STUDY in what)
    states = f"{len(left)} different states, {early} times no study yet"
    return Story(f"killed and resumed, {len(places)} sweeps to their end", tuple(places), states, kills)


def _killed_to_the_end(place: Place, chance: random.Random, seconds: float, most: int, left: Counter[str]) -> int:
    """Kill a sweep until it ends before its next kill; how often that was. What each left is counted in `left`."""
    arguments: tuple[str, ...] = ()
    for kill in range(most):
        with place.start(*arguments) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.1, 1) * seconds)
            if process.poll() is not None:
                place.wait(process)
                return kill
            process.kill()
        left[what := place.remains()] += 1
        arguments = ("resume", "sweep")
        if NO_STUDY in what:  # killed before there was anything to resume
            shutil.rmtree(place.sweep, ignore_errors=True)
            arguments = ()
    place.run(*arguments)
    return most


SIGNALS = {"sigterm": (signal.SIGTERM,), "ctrl-c": (signal.SIGINT, signal.SIGINT)}
