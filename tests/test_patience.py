"""When a search is out of patience: the best has not improved for so many trials."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ray.tune.search import Searcher

from chronotune.config.recipe import Recipe
from chronotune.search import unimproved
from chronotune.study import State, Study, TrialRecord
from search_parts import FakeTune, table
from sweep_parts import new_study, result, small_recipe


def _ended(number: int, score: float, state: State = "complete") -> TrialRecord:
    ended = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    return TrialRecord(number, state, None, (result(27, score),), None, ended, ended)


@pytest.mark.parametrize(
    ("trials", "since", "expected"),
    [
        ([], 0, 0),
        ([_ended(0, 0.5, "pruned"), _ended(1, 0.4, "pruned")], 0, 0),
        ([_ended(0, 0.5), _ended(1, 0.4), _ended(2, 0.4)], 0, 1),
        ([_ended(0, 0.5), _ended(1, 0.1, "pruned"), _ended(2, 0.6), _ended(3, 0.7, "failed")], 0, 2),
        ([_ended(2, 0.5), _ended(0, 0.6), _ended(1, 0.6)], 0, 0),
        ([_ended(0, 0.5), _ended(1, 0.6), _ended(2, 0.6)], 2, 1),
    ],
    ids=["nothing", "no full budget", "a tie", "failed says nothing", "in order of their ends", "since an extension"],
)
def test_trials_without_improvement_are_counted(trials: list[TrialRecord], since: int, expected: int) -> None:
    """Only a trial of full budget improves the best, and only what ended counts."""
    assert unimproved(trials, since) == expected


def _patient(tmp_path: Path, patience: int | None) -> tuple[Study, Recipe]:
    budget = {"trials": 30, "windows": 27, "patience": patience}
    recipe = small_recipe(budget=budget, search={"sampler": "random"}, early_stopping={"kind": "none"})
    (folder := tmp_path / str(patience)).mkdir()
    return new_study(folder, recipe), recipe


def test_patience_ends_a_sweep(tmp_path: Path) -> None:
    """After the first run of so many trials that bring nothing; the trials before are those of a patient sweep."""
    whole, recipe = _patient(tmp_path, None)
    FakeTune(whole, recipe).run()
    study, recipe = _patient(tmp_path, 4)
    tune = FakeTune(study, recipe)
    tune.run()
    end = next(n for n in range(1, 31) if unimproved(whole.trials[:n]) == 4)
    assert end < 30
    assert table(study) == table(whole)[:end]
    assert "4 trials (budget.patience)" in str(tune.searcher.stopped_by)
    assert not tune.searcher.wants_more()


def test_an_extension_begins_with_new_patience(tmp_path: Path) -> None:
    """Else it would end before its first trial."""
    study, recipe = _patient(tmp_path, 2)
    FakeTune(study, recipe).run()
    before = len(study.trials)
    study.note("extended", before)
    FakeTune(study, recipe, wanted=before + 1).run()
    assert len(study.trials) == before + 1


def test_out_of_patience_it_waits_for_what_runs(tmp_path: Path) -> None:
    """That may still improve on the best: then the search goes on, else it is over."""
    study, recipe = _patient(tmp_path, 1)
    study.note("zero_shot", [])
    tune = FakeTune(study, recipe)
    tune.searcher._slots = lambda: 2
    (slow, proposal), (fast, other) = tune.suggest(), tune.suggest()
    study.record(other["number"], result(27, 0.5))
    tune.searcher.on_trial_complete(fast)
    fast, other = tune.suggest()
    study.record(other["number"], result(27, 0.6))
    tune.searcher.on_trial_complete(fast)
    assert tune.suggest()[1] is None
    study.record(proposal["number"], result(27, 0.4))
    tune.searcher.on_trial_complete(slow)
    last, other = tune.suggest()
    study.record(other["number"], result(27, 0.6))
    tune.searcher.on_trial_complete(last)
    assert tune.suggest()[1] == Searcher.FINISHED
