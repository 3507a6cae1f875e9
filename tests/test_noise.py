"""What a rung can tell apart: paired by origin, as simulated trials of known difference and noise."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from chronotune.metrics import Floats
from chronotune.noise import LOSSES, at_rungs, by_origin, difference, packed, sentence, unpacked
from chronotune.records import TrialRecord
from chronotune.report import conclude
from chronotune.results import as_dict
from sweep_parts import POINT, ask, new_study, result
from test_report import console, text_of


def trial(number: int, rungs: Mapping[int, Floats]) -> TrialRecord:
    """A trial with these losses by origin."""
    results = tuple(
        replace(result(windows, float(losses.sum())), attributes={LOSSES: packed(losses)})
        for windows, losses in rungs.items()
    )
    return TrialRecord(number, "running", POINT, results, None, None, None)


def test_losses_are_summed_by_origin() -> None:
    """All series of one moment are one observation, whatever their order."""
    assert by_origin(np.array([1.0, 2.0, 4.0, 8.0]), [96, 24, 96, 24]).tolist() == [10.0, 5.0]


def test_losses_are_kept_compactly() -> None:
    """To seven digits, in less than six characters each."""
    losses = np.random.default_rng(0).gamma(2, size=24)
    assert np.allclose(unpacked(packed(losses)), losses, rtol=1e-7)
    assert len(packed(losses)) < 6 * 24


@pytest.mark.parametrize("root", [False, True])
def test_the_error_is_that_of_repetitions(root: bool) -> None:
    """As the difference scatters when the origins are drawn anew; what all trials share does not count."""
    random, found = np.random.default_rng(1), []
    for _ in range(600):
        weather = random.gamma(2, size=24)
        best, other = weather * random.normal(1, 0.05, 24), 1.1 * weather * random.normal(1, 0.05, 24)
        found.append(difference(other, best, root=root))
    differences, errors = np.array(found).T
    assert differences.mean() == pytest.approx(math.sqrt(1.1) - 1 if root else 0.1, abs=0.003)
    assert np.sqrt((errors**2).mean()) == pytest.approx(differences.std(), rel=0.1)
    assert errors.mean() < 0.25 * 2 / math.sqrt(24) / math.sqrt(2)  # unpaired, the weather alone would make more


def test_a_rung_says_what_it_tells_apart() -> None:
    """Those within two standard errors of the best are counted; a trial that is far behind is told."""
    random = np.random.default_rng(2)
    weather = random.gamma(2, size=24)
    first = {number: weather * factor * random.normal(1, 0.05, 24) for number, factor in enumerate((1, 1.001, 1.5, 3))}
    trials = [trial(number, {3: losses} | ({9: weather} if number < 1 else {})) for number, losses in first.items()]
    [rung] = at_rungs(trials, "sql")
    assert (rung.windows_seen, rung.origins, rung.trials, rung.close) == (3, 24, 4, 1)
    assert 0.01 < rung.separates < 0.06
    assert json.loads(json.dumps(asdict(rung))) == asdict(rung)
    told = sentence([rung])
    assert told is not None
    assert told.startswith("validation noise: on 24 origins these cannot be told from the best of as many windows: 1 ")
    assert told.endswith(f"after 3 windows (about {rung.separates:.2%} would tell)")


def test_more_origins_tell_more_apart() -> None:
    """Four times as many, half the difference."""
    random, told = np.random.default_rng(3), []
    for origins in (50, 200):
        weather = random.gamma(2, size=origins)
        trials = [trial(number, {3: weather * random.normal(1, 0.05, origins)}) for number in range(40)]
        told.append(at_rungs(trials, "sql")[0].separates)
    assert told[1] / told[0] == pytest.approx(0.5, rel=0.2)


def test_what_nobody_knows_is_not_told() -> None:
    """A sweep of before, one trial alone, one origin, no loss at all, one that is not finite."""
    assert at_rungs([replace(trial(0, {}), results=(result(3, 0.5),))] * 2, "sql") == []
    assert at_rungs([trial(0, {3: np.ones(4)})], "sql") == []
    assert at_rungs([trial(0, {3: np.ones(1)})] * 2, "sql") == []
    assert sentence([]) is None
    for one, best in (([1.0, 1.0], [0.0, 0.0]), ([math.nan, 1.0], [1.0, 1.0])):
        assert difference(np.array(one), np.array(best)) == (math.inf, math.inf)
    assert difference(np.ones(3), np.ones(3)) == (0.0, 0.0)


def test_it_is_shown_below_the_leaderboard_and_to_scripts(tmp_path: Path) -> None:
    """Rung by rung, in the sentence and as JSON."""
    study, losses = new_study(tmp_path), np.random.default_rng(4).gamma(2, size=(3, 24))
    for one in losses:
        number = ask(study)
        study.record(number, replace(result(27, float(one.sum())), attributes={LOSSES: packed(one)}))
    [rung] = at_rungs(study.trials, "sql")
    told = sentence([rung])
    assert told is not None
    conclude(page := console(), tmp_path, study.read())
    assert told in text_of(page).splitlines()
    assert json.loads(json.dumps(as_dict(study.read())["noise"])) == [asdict(rung)]
