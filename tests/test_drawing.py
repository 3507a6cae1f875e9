"""Trials are drawn in a study in memory, which knows what the durable one knows; they may be drawn ahead."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from chronotune import sampler as proposing
from chronotune.config.recipe import Recipe
from chronotune.config.space import Hyperparameters
from chronotune.proposal import Drawn, Proposal
from chronotune.records import BUDGET
from chronotune.study import JOURNAL, Study, read
from search_parts import FIRST_POINTS, STEPPED, FakeTune, imports_of_a_sweep, table
from sweep_parts import any_point, ask, new_study, result, small_recipe

RUNGS = (3, 9, 27)


def _how(number: int, **changes: Any) -> Proposal:
    recipe = small_recipe(search={"sampler": "tpe", "startup_trials": 3})
    return Proposal(proposing.sampler(recipe, number), proposing.draw(recipe.search_space), **changes)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("mode", [["full", "lora"], ["lora"], ["full"], "lora", "full"])
@pytest.mark.parametrize("known", [0, 60])
def test_tpe_draws_as_optuna_s_does_in_a_study_of_its_own(tmp_path: Path, mode: Any, known: int) -> None:
    """With `group=True`, whatever decides of a rank; complete, pruned, failed and running trials, and earlier ones.

    Of one that runs Optuna counts a rank that was drawn in vain too, so only trials that have one stay running.
    """
    space = {**small_recipe().search_space.model_dump(exclude_none=True)}
    space["mode"] = mode if isinstance(mode, str) else {"type": "choice", "values": mode}
    recipe = small_recipe(search={"sampler": "tpe", "startup_trials": 3}, search_space=space)
    draw, states, theirs = proposing.draw(recipe.search_space), list[str](), optuna.create_study()
    study, imports = new_study(tmp_path, recipe), _an_earlier_sweep(recipe, known)
    theirs.add_trials(imports)
    for number in range(40):
        seed = proposing.seed_of(recipe, number)
        theirs.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=3, multivariate=True, group=True)
        drawn = theirs.ask()
        point = draw(drawn)
        assert study.ask(Proposal(proposing.sampler(recipe, number), draw, beside=imports)).hyperparameters == point
        if number % 5 == 3:
            study.fail(number, "the loss was NaN")
            theirs.tell(drawn, state=TrialState.FAIL)
        elif number % 5 < 3 or point.lora_rank is None:
            for rung in (reached := RUNGS[: 1 + number % 3]):
                study.record(number, result(rung, score := (number * 7 % 11) + 1 / rung))
                drawn.report(score, rung)
            theirs.tell(drawn, *([score] if reached == RUNGS else [None, TrialState.PRUNED]))
            study.finish(number, RUNGS[-1])
        states.append(study.trial(number).state)
    assert set(states) >= {"complete", "pruned", "failed"}


def _an_earlier_sweep(recipe: Recipe, count: int) -> list[FrozenTrial]:
    """Trials at random points with scores in no order, as `imported` makes them."""
    blank, trials = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)), list[dict[str, Any]]()
    for number in range(count):
        proposing.draw(recipe.search_space)(drawn := blank.ask())
        score, is_whole = float(number * 37 % 61), number % 3 == 0
        results = [[3, score + 1], *([[27, score]] if is_whole else [])]
        trials.append({"state": "complete" if is_whole else "pruned", "values": dict(drawn.params), "results": results})
    return proposing.imported(trials, recipe.search_space)


def test_a_reopened_study_draws_the_same(tmp_path: Path) -> None:
    """All that it has to know is in the study."""
    study = new_study(_made(tmp_path / "one"))
    for number in range(8):
        study.ask(_how(number))
        study.record(number, result(3, number * 7 % 11))
        study.finish(number, RUNGS[-1])
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    again = Study.reopen(tmp_path / "two").ask(_how(8))
    assert again.hyperparameters == study.ask(_how(8)).hyperparameters


def test_a_trial_is_written_whole(tmp_path: Path) -> None:
    """Cut off after any line of the journal, no trial is without its point."""
    study = new_study(tmp_path)
    points = [study.trial(ask(study)).hyperparameters for _ in range(3)]
    journal = tmp_path / JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    for cut in range(len(lines) - 3, len(lines) + 1):
        journal.write_text("".join(lines[:cut]))
        assert [trial.hyperparameters for trial in read(tmp_path).trials] == points[: cut - len(lines) + 3]


def test_a_trial_that_an_older_version_left_without_a_point_has_failed(tmp_path: Path) -> None:
    """Cut off while its parameters were written one by one, or before: it counts as one of those that were wanted."""
    recipe = small_recipe()
    study = new_study(tmp_path, recipe)
    study._study.ask()
    study._study.enqueue_trial({"windows": 2})
    FakeTune(study, recipe).run()
    assert [trial.state for trial in study.trials[:2]] == ["failed", "failed"]
    assert study.trials[0].reason == "its driver died before all its parameters were written"
    assert len(study.trials) == 4


def test_a_proposal_is_drawn_beside_other_work(tmp_path: Path) -> None:
    """Where it may be: in a thread of its own, which `ask` waits for; an error comes there."""
    study, go, threads = new_study(tmp_path), threading.Event(), list[threading.Thread]()

    def slowly(trial: optuna.Trial) -> Hyperparameters:
        threads.append(threading.current_thread())
        assert go.wait(60)
        return any_point(trial)

    proposal = Proposal(optuna.samplers.RandomSampler(seed=5), slowly, ahead=True)
    study.prepare(proposal)
    study.note("other", "work")
    assert study.trials == []
    go.set()
    asked = study.ask(proposal)
    assert asked.hyperparameters == any_point(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=5)).ask())
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
    study.prepare(Proposal(optuna.samplers.RandomSampler(seed=5), slowly))
    assert len(threads) == 1, "what has to know how the last trial ends is not begun before"

    def fail(_: optuna.Trial) -> Hyperparameters:
        raise ValueError("no such point")

    study.prepare(failing := Proposal(optuna.samplers.RandomSampler(seed=6), fail, ahead=True))
    with pytest.raises(ValueError, match="no such point"):
        study.ask(failing)
    assert study.ask(Proposal(optuna.samplers.RandomSampler(seed=6), any_point)).number == 1


def test_a_proposal_ahead_does_not_depend_on_the_last_trial_s_end(tmp_path: Path) -> None:
    """Prepared while that runs, or asked for after it has ended well, badly or not at all: the same point."""

    def after(name: str, score: float | None, prepared: bool = False, ahead: bool = True) -> Hyperparameters | None:
        study = new_study(_made(tmp_path / name))
        for number in range(12):
            study.ask(_how(number))
            if prepared:
                study.prepare(_how(number + 1, ahead=number == 11))
            if number < 11:
                study.record(number, result(27, number * 7 % 11))
                study.finish(number, 27)
        if score is not None:
            study.record(11, result(27, score))
            study.finish(11, 27)
        return study.ask(_how(12, ahead=ahead)).hyperparameters

    points = {after("well", -9.0), after("badly", 99.0), after("not", None), after("prepared", -9.0, prepared=True)}
    assert len(points) == 1
    assert after("known", -9.0, ahead=False) not in {*points, None}


@pytest.mark.parametrize(("space", "known"), [(None, 0), (STEPPED, 0), (None, 9)])
@pytest.mark.parametrize("untold", [False, True])
@pytest.mark.parametrize("killed_after", [5, 9, 14])
def test_a_resumed_sweep_that_draws_ahead_is_the_unbroken_one(
    tmp_path: Path, monkeypatch: Any, space: dict[str, Any] | None, known: int, untold: bool, killed_after: int
) -> None:
    """A new driver draws by itself what the dead one had begun to, with the same outcome; no point comes twice."""
    monkeypatch.setattr(proposing, "GAUSSIAN_UNTIL", 4)
    threads = _threads_of_drawing(monkeypatch)
    parts: dict[str, Any] = {"search_space": space} if space else {}
    recipe = small_recipe(budget={"trials": 12, "windows": 27}, search={"startup_trials": 2}, **parts)
    unbroken, broken = (new_study(_made(tmp_path / name), recipe) for name in ("unbroken", "broken"))
    for study in (unbroken, broken):
        study.note("first", FIRST_POINTS[2:])
        study.note("imports", imports_of_a_sweep(known))
    FakeTune(unbroken, recipe).run()
    count = len(unbroken.trials)
    drawn_now = 1 if known else 4
    assert threads == ["driver's"] * drawn_now + ["its own"] * (count - drawn_now)
    FakeTune(broken, recipe).run(until=killed_after, untold=untold)
    resumed = Study.reopen(tmp_path / "broken")
    FakeTune(resumed, recipe).run()
    assert table(resumed) == table(unbroken)
    assert len({trial.hyperparameters for trial in resumed.trials}) == count == 12


def test_with_two_slots_each_trial_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends between the begin of its drawing and its being asked for."""
    monkeypatch.setattr(proposing, "GAUSSIAN_UNTIL", 2)
    threads = _threads_of_drawing(monkeypatch)
    recipe = small_recipe(budget={"trials": 9, "windows": 27}, search={"startup_trials": 2})
    study = new_study(tmp_path, recipe)
    study.note("zero_shot", [])
    tune = FakeTune(study, recipe)
    tune.searcher._slots = lambda: 2
    running = [tune.begin(), tune.begin()]
    for _ in range(7):
        trial = running.pop(0)
        tune.report(trial, 3, 1 / (1 + trial.config["number"]))
        tune.searcher.on_trial_complete(trial.trial_id, {BUDGET: 3})
        running.append(tune.begin())
    assert [trial.config["number"] for trial in running] == [7, 8]
    assert threads == ["driver's"] * 2 + ["its own"] * 7
    assert len({trial.hyperparameters for trial in study.trials}) == 9


def _threads_of_drawing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whose thread each trial is drawn in from now on, in order."""
    threads, choose = list[str](), Proposal.choose

    def noted(*arguments: Any) -> Drawn:
        threads.append("driver's" if threading.current_thread() is threading.main_thread() else "its own")
        return choose(*arguments)

    monkeypatch.setattr(Proposal, "choose", noted)
    return threads


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
