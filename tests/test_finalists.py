"""The finalists: who is chosen, who wins, what is exported, and how they are resumed. No training, no Ray."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from chronotune.config.load import dump_recipe, load_recipe
from chronotune.config.recipe import Finalists
from chronotune.data.prepare import load
from chronotune.errors import WORKER_LOST, InputError
from chronotune.finalists import any_lost, champion, choose, latest, needed, plan, seeds, standings
from chronotune.identity import trusting
from chronotune.proposal import Proposal
from chronotune.records import BUDGET
from chronotune.repeats import FinalistSearcher
from chronotune.results import as_dict, leaderboard
from chronotune.search import MAX_WORKER_DEATHS
from chronotune.study import JOURNAL, Reading, Study, read
from sweep_parts import any_point, ask, new_study, result, small_recipe

FULL = 27


def searched(directory: Path, *scores: float) -> Study:
    """A study of complete trials with these scores."""
    directory.mkdir(parents=True, exist_ok=True)
    study = new_study(directory)
    for score in scores:
        number = ask(study)
        study.record(number, result(FULL, score))
        study.finish(number, FULL)
    return study


def repeated(directory: Path, repeats: dict[int, list[float | None]], chosen_seeds: int = 3) -> Reading:
    """A reading in which trials were trained again with seeds 1, 2, ...; NaN: it failed, None: it still runs."""
    study = searched(directory, *(0.5 + trial / 100 for trial in range(1 + max(repeats))))
    second = study.finalists()
    study.note("finalists", {"trials": list(repeats), "seeds": seeds(0, chosen_seeds)})
    for trial, scores in repeats.items():
        for seed, score in enumerate(scores, start=1):
            number = study.repeat(trial, seed, into=second).number
            if score is None:
                continue
            if math.isnan(score):
                second.fail(number, "the loss was NaN")
                continue
            second.record(number, result(9, score))
            second.record(number, result(FULL, score + 1))
            second.finish(number, FULL)
    return study.read()


def test_the_best_complete_trials_are_chosen(tmp_path: Path) -> None:
    """By their scores; those that were stopped early or failed cannot win, so they are not trained again."""
    study = searched(tmp_path, 0.7, 0.5, 0.6, 0.8)
    for score in (0.1, 0.2):
        study.record(ask(study), result(3, score))
    study.finish(4, FULL)
    study.fail(5, "no memory")
    assert choose(study.trials, top=3) == [1, 2, 0]
    assert choose(study.trials, top=9) == [1, 2, 0, 3]


def test_equal_configurations_count_once(tmp_path: Path) -> None:
    """A small space proposes the same again; training it under two numbers would find out nothing."""
    study = searched(tmp_path, 0.7, 0.6)
    point = study.trials[1].hyperparameters
    assert point is not None
    number = study.ask(Proposal(optuna.samplers.RandomSampler(), lambda trial: point)).number
    study.record(number, result(FULL, 0.5))
    study.finish(number, FULL)
    assert choose(study.trials, top=2) == [2, 0]
    assert choose(study.trials, top=2, before=[1]) == [1, 0]


def test_who_was_chosen_stays_when_the_sweep_is_extended(tmp_path: Path) -> None:
    """Luckier newcomers join; they do not push out a finalist whose mean is known."""
    study = searched(tmp_path, 0.7, 0.6, 0.5, 0.4)
    assert choose(study.trials, top=2, before=[1, 0]) == [1, 0, 3, 2]


def test_the_search_s_own_seed_is_none_of_theirs() -> None:
    """It was chosen by its luck; the others follow it, and stay in the range of seeds."""
    assert seeds(7, 3) == [8, 9, 10]
    assert seeds(2**31 - 2, 3) == [2**31 - 1, 0, 1]


def test_each_seed_is_trained_for_all_before_the_next() -> None:
    """So that the finalists can be compared as early as possible."""
    assert plan({"trials": [5, 2], "seeds": [1, 2]}) == [(5, 1), (2, 1), (5, 2), (2, 2)]


def test_the_best_mean_wins_and_its_median_is_exported(tmp_path: Path) -> None:
    """Not the trial that led the search, nor the luckiest seed; the best score of a training counts, not its last."""
    reading = repeated(tmp_path, {0: [0.9, 0.4, 0.8], 1: [0.6, 0.5, 0.58], 2: [0.75, 0.75, 0.75]})
    assert [standing.trial.number for standing in standings(reading)] == [1, 0, 2]
    best = champion(reading)
    assert best is not None
    assert best.trial.number == 1
    assert best.mean == pytest.approx(0.56)
    assert best.spread == pytest.approx(0.0529, abs=1e-4)
    assert best.median is not None
    assert (best.median.of, best.median.seed) == (1, 3)
    assert reading.winner is not None
    assert reading.winner.number == 0


def test_of_two_in_the_middle_the_worse_is_exported(tmp_path: Path) -> None:
    """Between two seeds there is no middle: rather too modest than lucky."""
    best = champion(repeated(tmp_path, {0: [0.5, 0.6]}, chosen_seeds=2))
    assert best is not None
    assert best.median is not None
    assert best.median.seed == 2


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    """And is its own mean and median."""
    best = champion(repeated(tmp_path, {0: [0.5]}, chosen_seeds=1))
    assert best is not None
    assert (best.mean, best.spread) == (0.5, None)


def test_a_finalist_that_fails_for_a_seed_ranks_behind(tmp_path: Path) -> None:
    """However well it does for the others: it is not safe."""
    reading = repeated(tmp_path, {0: [0.1, math.nan, 0.1], 1: [0.6, 0.6, 0.6], 2: [math.nan] * 3})
    assert [standing.trial.number for standing in standings(reading)] == [1, 0, 2]
    assert champion(reading) == standings(reading)[0]


def test_nobody_wins_when_all_fail(tmp_path: Path) -> None:
    """Then the search's best trial does."""
    assert champion(repeated(tmp_path, {0: [math.nan], 1: [math.nan]}, chosen_seeds=1)) is None


def test_who_is_not_ready_does_not_win_yet(tmp_path: Path) -> None:
    """One score is no mean over the seeds."""
    reading = repeated(tmp_path, {0: [0.1, None], 1: [0.6, 0.6, 0.6]})
    best = champion(reading)
    assert best is not None
    assert best.trial.number == 1


def test_checkpoints_that_may_be_exported_are_needed(tmp_path: Path) -> None:
    """All of a finalist that is not ready, and the median of the best one that is."""
    reading = repeated(tmp_path, {0: [0.1, None], 1: [0.6, 0.5, 0.7], 2: [0.9, 0.9, 0.9]})
    names = {repeat.number: (repeat.of, repeat.seed) for repeat in reading.finalists}
    assert {names[number] for number in needed(reading)} == {(0, 1), (0, 2), (1, 1)}


def test_repeats_are_no_trials_of_the_search(tmp_path: Path) -> None:
    """The searched study, its best trial, its leaderboard and the next proposal are as without them."""
    repeated(tmp_path / "with", {0: [0.1, 0.1, 0.1]})
    searched(tmp_path / "without", 0.5)
    with_them, without = Study.reopen(tmp_path / "with"), Study.reopen(tmp_path / "without")
    assert [trial.number for trial in with_them.trials] == [0]
    assert leaderboard(with_them.read()).equals(leaderboard(without.read()))
    learning = [Proposal(optuna.samplers.TPESampler(n_startup_trials=1, seed=0), any_point) for _ in "ab"]
    asked = [study.ask(by).hyperparameters for study, by in zip((with_them, without), learning, strict=True)]
    assert asked[0] == asked[1]


def test_optuna_s_own_tools_read_them(tmp_path: Path) -> None:
    """As the study NAME/finalists of the same journal, with parameters, states and values."""
    repeated(tmp_path, {0: [0.4, math.nan, None]})
    storage = JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))
    first, second = (optuna.load_study(study_name=name, storage=storage) for name in ("small", "small/finalists"))
    assert [trial.state.name for trial in second.trials] == ["COMPLETE", "FAIL", "RUNNING"]
    assert second.best_value == 0.4
    assert second.trials[0].params == first.trials[0].params
    assert second.trials[0].user_attrs["seed"] == 1


def test_a_sweep_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    """Its study knows of no second one, and its recipe of no finalists."""
    study = searched(tmp_path, 0.5)
    recipe = dict(study.attribute("recipe"))
    del recipe["finalists"]
    study.note("recipe", recipe)
    reading = read(tmp_path)
    assert reading.finalists == ()
    assert champion(reading) is None
    assert as_dict(reading)["finalists"] == []


def test_a_recipe_of_an_earlier_version_keeps_its_covariates(tmp_path: Path) -> None:
    """It was written when no known future was questioned; one that is written now, or says whom it trusts, is asked."""
    solar = {"source": "solar", "time": "time", "target": "ghi", "seasons": [24], "known_future": ["cloud_cover"]}
    text = dump_recipe(small_recipe(data=solar))
    (tmp_path / "new.yaml").write_text(text)
    old, count = re.subn(r"  trust_known_future: \[\]\n", "", text)
    assert count == 1
    (tmp_path / "old.yaml").write_text(old)
    with pytest.raises(InputError, match="must be known in advance"):
        load(trusting(load_recipe(tmp_path / "new.yaml")))
    begun = load(trusting(load_recipe(tmp_path / "old.yaml")))
    assert begun.report.warnings[0].rule.startswith("is trusted to be known in advance")


def test_three_of_three_by_default() -> None:
    """As the recipe's schema says."""
    assert Finalists() == Finalists(top=3, seeds=3)


def drive(study: Study, until: float = math.inf, untold: bool = False) -> list[dict[str, Any]]:
    """Ray Tune's part: one training after the other; cut off like a SIGKILL after `until` results.

    With `untold`, before the study is told of an end that the last of them brought. Returns what was handed out.
    """
    second = study.finalists()
    searcher = FinalistSearcher(study, second, plan(study.attribute("finalists")), FULL, slots=lambda: 1)
    given: list[dict[str, Any]] = []
    while True:
        proposal = searcher.suggest(f"t{len(given)}")
        if proposal == searcher.FINISHED:
            assert not searcher.wants_more()
            return given
        assert isinstance(proposal, dict)
        assert searcher.suggest("too many") is None
        given.append(proposal)
        for rung in (3, 9, FULL):
            if rung <= second.trial(proposal["number"]).windows_seen:
                continue
            if until <= 0:
                return given
            until -= 1
            second.record(proposal["number"], result(rung, proposal["seed"] + 1 / rung))
        if until <= 0 and untold:
            return given
        searcher.on_trial_complete(f"t{len(given) - 1}", {BUDGET: FULL})


@pytest.mark.parametrize("untold", [False, True])
@pytest.mark.parametrize("killed_after", [0, 1, 3, 5, 12, 17])
def test_resumed_finalists_are_the_unbroken_ones(tmp_path: Path, untold: bool, killed_after: int) -> None:
    """Each repeat exactly once, the running one first, and nothing finished is handed out again."""
    chosen = {"trials": [1, 0], "seeds": [1, 2, 3]}
    unbroken, broken = (searched(tmp_path / name, 0.5, 0.4) for name in ("unbroken", "broken"))
    for study in (unbroken, broken):
        study.note("finalists", chosen)
    drive(unbroken)
    drive(broken, killed_after, untold)
    resumed = Study.reopen(tmp_path / "broken")
    done = {repeat.number for repeat in resumed.finalists().trials if repeat.state != "running"}
    given = drive(resumed)
    assert not done & {proposal["number"] for proposal in given}
    tables = [
        [(r.number, r.of, r.seed, r.state, r.hyperparameters, r.results) for r in study.finalists().trials]
        for study in (unbroken, resumed)
    ]
    assert tables[0] == tables[1]
    assert [(of, seed, state) for _, of, seed, state, *_ in tables[0]] == [
        (number, seed, "complete") for seed in (1, 2, 3) for number in (1, 0)
    ]


def test_a_failure_is_told_with_its_reason(tmp_path: Path) -> None:
    """And the training is not tried again."""
    study = searched(tmp_path, 0.5)
    study.note("finalists", {"trials": [0], "seeds": [1]})
    second = study.finalists()
    searcher = FinalistSearcher(study, second, [(0, 1)], FULL, slots=lambda: 1)
    searcher.suggest("t")
    searcher.on_trial_complete("t", {"failed": "no memory"})
    assert [(r.state, r.reason) for r in study.read().finalists] == [("failed", "no memory")]
    assert drive(study) == []


def lose_the_first(study: Study) -> None:
    """One driver's work: the worker of the first repeat dies once too often, the others get their full budget."""
    second = study.finalists()
    searcher = FinalistSearcher(study, second, plan(study.attribute("finalists")), FULL, slots=lambda: 1)
    assert isinstance(searcher.suggest("first"), dict)
    for _ in range(MAX_WORKER_DEATHS):
        searcher.on_worker_death("first")
        searcher.on_trial_start("first")
    searcher.on_trial_complete("first", error=True)
    while isinstance(proposal := searcher.suggest("t"), dict):
        second.record(proposal["number"], result(FULL, 0.5 + proposal["seed"] / 10))
        searcher.on_trial_complete("t", {BUDGET: FULL})


def test_a_repeat_whose_worker_died_is_tried_again_by_the_next_driver(tmp_path: Path) -> None:
    """A dead machine says nothing of a configuration: the finalist does not rank behind for it for ever."""
    study = searched(tmp_path, 0.4, 0.5)
    study.note("finalists", {"trials": [0, 1], "seeds": [1]})
    lose_the_first(study)
    reading = study.read()
    assert [(r.of, r.seed, r.state) for r in reading.finalists] == [(0, 1, "failed"), (1, 1, "complete")]
    assert reading.finalists[0].reason == WORKER_LOST
    assert any_lost(reading)
    assert [standing.trial.number for standing in standings(reading)] == [1, 0]
    assert champion(reading) == standings(reading)[0]

    [given] = drive(Study.reopen(tmp_path), until=1)
    assert (given["number"], given["seed"]) == (2, 1)
    assert not any_lost(read(tmp_path))
    drive(Study.reopen(tmp_path))
    reading = read(tmp_path)
    assert [(r.number, r.of, r.state) for r in latest(reading.finalists)] == [(2, 0, "complete"), (1, 1, "complete")]
    assert [standing.failures for standing in standings(reading)] == [0, 0]
    assert drive(Study.reopen(tmp_path)) == []


def test_what_a_lost_repeat_may_still_decide_stays_on_disk(tmp_path: Path) -> None:
    """Its finalist ranks behind only until it is tried again; its median may then be any of the others."""
    study = searched(tmp_path, 0.4, 0.5)
    study.note("finalists", {"trials": [0, 1], "seeds": [1, 2]})
    lose_the_first(study)
    reading = study.read()
    kept = {(r.of, r.seed) for r in reading.finalists if r.number in needed(reading) and r.state == "complete"}
    assert kept == {(0, 2), (1, 2)}
    drive(study)
    reading = study.read()
    assert len([r for r in reading.finalists if r.number in needed(reading)]) == 1
