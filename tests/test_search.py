"""The searcher: what is proposed, in which order, and what the study is told."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from chronotune import sampler as proposing
from chronotune.config.recipe import Recipe
from chronotune.records import BUDGET, OBJECTIVE
from chronotune.search import LAST, MAX_WORKER_DEATHS, scheduler
from chronotune.study import Study, TrialRecord
from search_parts import FIRST_POINTS, STEPPED, FakeTune, imports_of_a_sweep, table
from sweep_parts import ask, new_study, result, small_recipe


def test_zero_shot_comes_first_and_is_no_trial(tmp_path: Path) -> None:
    """It takes a slot of Tune, and no number of the study."""
    tune = FakeTune(new_study(tmp_path), small_recipe())
    assert tune.suggest()[1] == {"zero_shot": True}
    assert tune.study.trials == []


def test_nothing_is_proposed_while_the_slots_are_taken(tmp_path: Path) -> None:
    """None makes Tune ask again later; FINISHED would end the search."""
    tune = FakeTune(new_study(tmp_path), small_recipe())
    tune.suggest()
    assert tune.suggest()[1] is None


def test_conditional_parameters_exist_only_where_they_apply(tmp_path: Path) -> None:
    """A rank is drawn for LoRA alone, and the study knows no other."""
    recipe = small_recipe(budget={"trials": 12, "windows": 27})
    study = new_study(tmp_path, recipe)
    FakeTune(study, recipe).run()
    points = [trial.hyperparameters for trial in study.trials]
    assert len(points) == 12
    assert {point.mode for point in points if point} == {"full", "lora"}
    assert all((point.lora_rank is None) == (point.mode == "full") for point in points if point)


def test_asha_stops_trials_at_rungs(tmp_path: Path) -> None:
    """Some end early, and are told as pruned."""
    recipe = small_recipe(budget={"trials": 12, "windows": 27})
    study = new_study(tmp_path, recipe)
    FakeTune(study, recipe).run()
    states = [trial.state for trial in study.trials]
    assert states.count("pruned") >= 4
    assert states.count("complete") >= 1
    assert {r.windows_seen for t in study.trials for r in t.results} == {3, 9, 27}


def test_without_early_stopping_all_complete(tmp_path: Path) -> None:
    """`kind: none` gives every trial its full budget."""
    recipe = small_recipe(early_stopping={"kind": "none", "grace": 3})
    study = new_study(tmp_path, recipe)
    FakeTune(study, recipe).run()
    assert [trial.state for trial in study.trials] == ["complete"] * 4


@pytest.mark.parametrize(
    ("sampler", "space"), [("tpe", None), ("tpe", STEPPED), ("random", None), ("gp", None), ("grid", STEPPED)]
)
@pytest.mark.parametrize("untold", [False, True])
@pytest.mark.parametrize("killed_after", [1, 4, 5, 9, 14])
def test_a_resumed_sweep_is_the_unbroken_one(
    tmp_path: Path, sampler: str, space: dict[str, Any] | None, untold: bool, killed_after: int
) -> None:
    """With one worker, trial by trial: parameters, results, states; also where points run short."""
    parts: dict[str, Any] = {
        "budget": {"trials": 10, "windows": 27},
        "search": {"sampler": sampler, "startup_trials": 3 if sampler == "tpe" else 1},
    }
    if space:
        parts["search_space"] = space
    recipe = small_recipe(**parts)
    (tmp_path / "unbroken").mkdir()
    (tmp_path / "broken").mkdir()
    unbroken = new_study(tmp_path / "unbroken", recipe)
    FakeTune(unbroken, recipe).run()
    FakeTune(new_study(tmp_path / "broken", recipe), recipe).run(until=killed_after, untold=untold)
    resumed = Study.reopen(tmp_path / "broken")
    FakeTune(resumed, recipe).run()
    assert table(resumed) == table(unbroken)


def test_a_failed_trial_counts_at_the_rungs_that_it_reached(tmp_path: Path) -> None:
    """As in Ray's ASHA: what it scored there was measured. Also when every trial has a driver of its own."""
    recipe = small_recipe(budget={"trials": 6, "windows": 27}, search={"sampler": "random"}, seed=6)
    unbroken, broken = (new_study(_made(tmp_path / name), recipe) for name in ("unbroken", "broken"))
    _with_a_failure(unbroken, recipe, wanted=6)
    for wanted in range(1, 7):
        _with_a_failure(broken, recipe, wanted)
    assert table(broken) == table(unbroken)
    assert [trial.state for trial in unbroken.trials[:2]] == ["failed", "pruned"]  # alone at a rung it would go on
    assert unbroken.trials[0].best is not None


def _with_a_failure(study: Study, recipe: Recipe, wanted: int) -> None:
    tune = FakeTune(study, recipe, wanted)
    tune.failing = {0}
    tune.run()


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_first_points_come_first_and_are_completed(tmp_path: Path, sampler: str) -> None:
    """One a trial, in order; what they leave open is drawn, a rank only where it applies."""
    recipe = small_recipe(search={"sampler": sampler, "startup_trials": 1})
    study = new_study(tmp_path, recipe)
    study.note("first", FIRST_POINTS)
    FakeTune(study, recipe).run()
    points = [trial.hyperparameters for trial in study.trials]
    assert len(points) == 4
    for point, first in zip(points, FIRST_POINTS, strict=False):
        assert point is not None
        assert first["values"].items() <= point.model_dump().items()  # type: ignore[attr-defined]
        assert (point.lora_rank is None) == (point.mode == "full")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_driver_killed_over_a_first_point_takes_it_once(tmp_path: Path, number: int) -> None:
    """Right after it was drawn: the same sweep as an unbroken one."""
    recipe = small_recipe(budget={"trials": 6, "windows": 27}, search={"sampler": "tpe", "startup_trials": 2})
    unbroken, broken = (new_study(_made(tmp_path / name), recipe) for name in ("unbroken", "broken"))
    for study in (unbroken, broken):
        study.note("first", FIRST_POINTS)
    FakeTune(unbroken, recipe).run()
    while len(broken.trials) < number:
        FakeTune(broken, recipe, wanted=len(broken.trials) + 1).run()
    FakeTune(broken, recipe).suggest()
    resumed = Study.reopen(tmp_path / "broken")
    FakeTune(resumed, recipe).run()
    assert table(resumed) == table(unbroken)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_the_sampler_learns_from_earlier_sweeps(tmp_path: Path, sampler: str) -> None:
    """From the first trial on, with no random start; the study itself and the rungs do not hold them."""
    recipe = small_recipe(search={"sampler": sampler, "startup_trials": 8})
    study = new_study(tmp_path, recipe)
    study.note("imports", imports_of_a_sweep(24))
    asha = FakeTune(study, recipe)
    asha.run()
    points = [trial.hyperparameters for trial in study.trials if trial.hyperparameters]
    assert len(study.trials) == len(points) == 4
    assert all(abs(math.log10(point.learning_rate / 5e-3)) < 0.7 for point in points[:2])
    assert study.trials[0].state == "complete", "the first at each rung goes on"


@pytest.mark.parametrize("killed_after", [1, 5, 9])
def test_a_resumed_sweep_still_sees_its_imports(tmp_path: Path, killed_after: int) -> None:
    """They are in its study: it equals the unbroken one, and one without them differs."""
    recipe = small_recipe(budget={"trials": 6, "windows": 27}, search={"startup_trials": 3})
    unbroken, broken, without = (new_study(_made(tmp_path / name), recipe) for name in ("a", "b", "c"))
    for study in (unbroken, broken):
        study.note("imports", imports_of_a_sweep(12))
        study.note("first", FIRST_POINTS[:1])
    FakeTune(unbroken, recipe).run()
    FakeTune(broken, recipe).run(until=killed_after)
    resumed = Study.reopen(tmp_path / "b")
    FakeTune(resumed, recipe).run()
    assert table(resumed) == table(unbroken)
    assert unbroken.trials[0].hyperparameters is not None
    assert FIRST_POINTS[0]["values"].items() <= unbroken.trials[0].hyperparameters.model_dump().items()  # type: ignore[attr-defined]
    FakeTune(without, recipe).run()
    assert table(without) != table(unbroken)


def test_imports_are_asked_beside_running_trials(tmp_path: Path) -> None:
    """With several slots the study in memory holds trials that still run."""
    study = new_study(tmp_path)
    study.note("zero_shot", [])
    study.note("imports", imports_of_a_sweep(12))
    tune = FakeTune(study, small_recipe())
    tune.searcher._slots = lambda: 3
    assert [tune.suggest()[1]["number"] for _ in range(3)] == [0, 1, 2]


def test_imports_have_the_distributions_that_are_drawn_from() -> None:
    """Else a sampler would keep them apart from the study's own trials."""
    space = small_recipe().search_space
    [trial, *_] = proposing.imported(imports_of_a_sweep(2), space)
    own = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    own.enqueue_trial({"mode": "lora"})
    drawn = own.ask()
    proposing.draw(space)(drawn)
    assert trial.distributions == drawn.distributions


def test_tpe_proposes_a_rank_together_with_the_rest() -> None:
    """What only some trials have is in the joint model too, and not drawn by itself."""
    recipe, study = small_recipe(search={"sampler": "tpe"}), optuna.create_study()
    for number, mode in enumerate(("full", "lora", "full")):
        study.enqueue_trial({"mode": mode})
        proposing.draw(recipe.search_space)(drawn := study.ask())
        study.tell(drawn, number)
    joint = proposing.sampler(recipe, 3).infer_relative_search_space(study, study.trials[-1])
    assert joint.keys() == recipe.search_space.parameters.keys()
    assert "lora_rank" in joint


def test_an_extended_sweep_remembers_its_rungs(tmp_path: Path) -> None:
    """Trials added later are judged against those before; an empty rung would let the first of them pass."""
    recipe = small_recipe(budget={"trials": 9, "windows": 27})
    study = new_study(tmp_path, recipe)
    FakeTune(study, recipe).run()
    asha = FakeTune(study, recipe, wanted=10).asha
    from types import SimpleNamespace

    trial = SimpleNamespace(trial_id="new", config={"number": 9})
    asha.on_trial_add(None, trial)
    assert asha.on_trial_result(None, trial, {BUDGET: 3, OBJECTIVE: 1e9}) == "STOP"


def test_a_trial_at_full_budget_is_only_told(tmp_path: Path) -> None:
    """Killed between its last report and its end."""
    recipe = small_recipe()
    study = new_study(tmp_path, recipe)
    tune = FakeTune(study, recipe)
    study.note("zero_shot", [])
    tune.searcher._zero_shot_due = False
    number = tune.suggest()[1]["number"]
    for rung in recipe.rungs:
        study.record(number, result(rung, 0.5))
    again = FakeTune(Study.reopen(tmp_path), recipe)
    assert again.suggest()[1]["number"] == number + 1
    assert again.study.trial(number).state == "complete"


def test_a_trial_that_asha_let_go_on_goes_on(tmp_path: Path) -> None:
    """Killed while it ran, after three better ones that were slower to begin had overtaken it; one stopped is told."""
    recipe = small_recipe(budget={"trials": 9, "windows": 27})
    study = new_study(tmp_path, recipe)
    study.note("zero_shot", [])
    slow, stopped, *better = (ask(study) for _ in range(5))
    for number, score, last in ((slow, 0.9, False), (stopped, 0.1, True), *((n, 0.5, True) for n in better)):
        study.record(number, replace(result(3, score), attributes={LAST: last}))
    for number in better:
        study.finish(number, full_budget=27)
    tune = FakeTune(Study.reopen(tmp_path), recipe)
    tune.searcher._slots = lambda: 3
    assert [tune.suggest()[1]["number"] for _ in range(2)] == [slow, 5]
    assert tune.study.trial(stopped).state == "pruned"


def test_failures_are_told_with_their_reason(tmp_path: Path) -> None:
    """A failed result has its own, a dead worker a general one."""
    study = new_study(tmp_path)
    study.note("zero_shot", [])
    tune = FakeTune(study, small_recipe())
    first, _ = tune.suggest()
    tune.searcher.on_trial_complete(first, {"failed": "the loss was NaN"})
    second, _ = tune.suggest()
    for _ in range(MAX_WORKER_DEATHS):
        tune.searcher.on_worker_death(second)
        tune.searcher.on_trial_start(second)
    tune.searcher.on_trial_complete(second, None, error=True)
    reasons = [trial.reason for trial in study.trials]
    assert reasons[0] == "the loss was NaN"
    assert "worker died" in str(reasons[1])


def test_what_an_earlier_sweep_tried_is_not_tried_again(tmp_path: Path) -> None:
    """Not even where too few are known to learn from, so that the same seed would draw the same."""
    recipe = small_recipe(search={"startup_trials": 9})
    folders = [tmp_path / "earlier", tmp_path / "later"]
    for folder in folders:
        folder.mkdir()
    earlier, later = (new_study(folder, recipe) for folder in folders)
    FakeTune(earlier, recipe).run()
    imports = [
        {"state": one.state, "values": one.hyperparameters.model_dump(exclude_none=True), "results": [[3, 0.5]]}
        for one in earlier.trials
        if one.hyperparameters
    ]
    later.note("imports", imports)
    FakeTune(later, recipe).run()
    assert len(imports) == len(later.trials) == recipe.budget.trials
    assert not {one.hyperparameters for one in earlier.trials} & {one.hyperparameters for one in later.trials}


def test_a_trial_enters_a_rung_once(tmp_path: Path) -> None:
    """Its worker died idle, so Ray Tune has it under a new id, and its last result comes again, as the worst of all."""
    recipe = small_recipe(budget={"trials": 9, "windows": 27})
    study = new_study(tmp_path, recipe)
    study.note("zero_shot", [])
    tune = FakeTune(study, recipe)
    tune.searcher._slots = lambda: 3
    first, worst, *_ = [tune.begin() for _ in range(3)]
    assert tune.report(worst, 3, 0.9) == "CONTINUE"
    assert tune.report(first, 3, 0.1) == "CONTINUE"
    tune.searcher.on_worker_death(worst.trial_id)
    tune.searcher.on_trial_complete(worst.trial_id, error=True)
    again = tune.begin()
    assert (again.config["number"], again.trial_id == worst.trial_id) == (worst.config["number"], False)
    assert tune.report(again, 3, 0.9) == "CONTINUE"
    assert [len(recorded) for _, recorded in tune.asha._brackets[0]._rungs] == [0, 0, 2]


def test_a_trial_that_waits_for_a_slot_is_in_its_rungs(tmp_path: Path) -> None:
    """Two were running; the cluster has one slot now, and the first is judged by what the second had reached."""
    recipe = small_recipe()
    study = new_study(tmp_path, recipe)
    study.note("zero_shot", [])
    first, second = ask(study), ask(study)
    for number, rung, score in ((first, 3, 0.5), (second, 3, 0.1), (second, 9, 0.05)):
        study.record(number, result(rung, score))
    tune = FakeTune(Study.reopen(tmp_path), recipe)
    trial = tune.begin()
    assert trial.config["number"] == first
    assert tune.report(trial, 9, 0.4) == "STOP"


def test_a_closed_searcher_begins_nothing_new(tmp_path: Path) -> None:
    """The time is up: what was left running goes on, and then it is over."""
    study = new_study(tmp_path)
    study.note("zero_shot", [])
    left_running = FakeTune(study, small_recipe()).suggest()[1]["number"]
    tune = FakeTune(Study.reopen(tmp_path), small_recipe())
    tune.searcher.close()
    assert not tune.searcher.wants_more()
    tune.run()
    assert [trial.number for trial in study.trials] == [left_running]
    assert study.trials[0].state == "complete"


def test_records_name_their_best() -> None:
    """A record without results has none."""
    record = TrialRecord(0, "running", None, (), None, None, None)
    assert record.best is None
    assert record.windows_seen == 0


@pytest.mark.parametrize("kind", ["asha", "none"])
def test_a_free_worker_takes_the_trial_that_was_proposed_for_it(kind: str) -> None:
    """Not the one that has waited longest, whose own worker is starting and would be ended for it."""
    chosen = scheduler(small_recipe(early_stopping={"kind": kind, "grace": 3}))
    states = ["TERMINATED", "RUNNING", "PENDING", "PENDING", "RUNNING"]
    trials = [SimpleNamespace(status=state) for state in states]
    controller = SimpleNamespace(get_trials=lambda: trials)
    assert chosen.choose_trial_to_run(controller) is trials[3]
    trials[2].status = trials[3].status = "RUNNING"
    assert chosen.choose_trial_to_run(controller) is None
