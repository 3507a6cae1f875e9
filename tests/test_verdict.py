"""The rule of the verdict, and its sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from chronotune.openings import Openings
from chronotune.significance import Comparison, SeriesGains
from chronotune.verdict import Decision, Verdict

NAN = float("nan")
CLEAR = Comparison(gain=0.06, low=0.03, high=0.09, smallest=0.04, win_rate=0.8, days=73, block=2)


ONCE = Openings(1, 1)


def verdict(openings: Openings | None = ONCE, **changes: Any) -> Verdict:
    """A clear one, with changes to what it rests on."""
    return Verdict("best", "zero-shot", "sql", replace(CLEAR, **changes), openings=openings)


@pytest.mark.parametrize(
    ("changes", "decision"),
    [
        ({}, "ship the challenger"),
        ({"low": -0.001}, "keep zero-shot"),
        ({"low": 0.0}, "keep zero-shot"),
        ({"gain": -0.06, "low": -0.09, "high": -0.03, "smallest": 0.5}, "keep zero-shot"),
        ({"low": -0.1, "high": 0.2, "smallest": 0.15}, "not enough test windows"),
        ({"low": 0.01, "high": 0.3, "smallest": 0.15}, "ship the challenger"),
        ({"days": 18, "block": 2}, "not enough test windows"),
        ({"days": 20, "block": 2}, "ship the challenger"),
        ({"gain": NAN, "low": NAN, "high": NAN, "smallest": NAN}, "keep zero-shot"),
    ],
)
def test_the_decision(changes: dict[str, Any], decision: Decision) -> None:
    """Ship what is surely better; say so when the test could not have shown a tenth."""
    assert verdict(**changes).decision == decision


def test_the_sentence_of_a_gain() -> None:
    """Gain with interval, what could have been shown, and the openings."""
    assert verdict().sentence == (
        "ship best, it is better than zero-shot: gain in sql +6.0% (95% interval +3.0% to +9.0%); "
        "73 test days show a true gain of 4.0% four times in five; test segment opened once"
    )


def test_the_sentence_of_a_panel_opened_often() -> None:
    """With the series that became worse, and a word about luck."""
    told = verdict(openings=Openings(3, 3), low=-0.01, by_series=SeriesGains(40, 7, 2, (0.0,) * 40)).sentence
    assert told.startswith("keep zero-shot, best is not shown to be better: gain in sql +6.0%")
    assert "7 of 40 series worse, 2 clearly" in told
    assert told.endswith("opened 3 times, and every further look gives luck a chance")


def test_the_sentence_of_a_segment_that_others_have_opened() -> None:
    """However seldom this sweep did, every look of another gave luck a chance; both are kept as values."""
    told = verdict(openings=Openings(1, 7))
    assert told.sentence.endswith(
        "test segment opened once by this sweep, 7 times in all by the sweeps here, and every further look gives luck "
        "a chance"
    )
    assert (told.as_dict()["test_openings"], told.as_dict()["test_openings_here"]) == (1, 7)
    assert "opened 4 times in all here" in verdict(openings=Openings(None, 4)).sentence
    assert verdict(openings=Openings(1, None)).sentence.endswith("test segment opened once by this sweep")
    assert "opened" not in verdict(openings=Openings()).sentence


def test_the_sentence_of_a_loss() -> None:
    """What is shown to be worse is called so."""
    told = verdict(gain=-0.02, low=-0.03, high=-0.01).sentence
    assert told.startswith("keep zero-shot, best is worse: gain in sql -2.0% (95% interval -3.0% to -1.0%)")


def test_the_sentence_of_too_few_windows() -> None:
    """How many there are and how many it takes; a number that is not there is not printed as nan."""
    told = verdict(days=9, block=3, low=NAN, high=NAN, smallest=NAN, openings=None).sentence
    assert told == (
        "not enough test windows to tell best from zero-shot: gain in sql +6.0%; "
        "9 days are 3 blocks of 3, a verdict needs 10"
    )
    assert "nan" not in verdict(gain=NAN, low=NAN, high=NAN, smallest=NAN).sentence


def test_a_verdict_is_json() -> None:
    """Flat, with null for what is not finite."""
    written = json.loads(json.dumps(verdict(low=NAN, high=NAN).as_dict(), allow_nan=False))
    assert written["low"] is None
    assert (written["decision"], written["gain"], written["blocks"]) == ("keep zero-shot", 0.06, 36)
