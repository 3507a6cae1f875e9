"""Threads of idle slots: when they are lent, taken and given back, and that a training with them can be repeated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from chronotune import threads
from chronotune.again import LastWorker
from chronotune.config.load import load_recipe
from chronotune.data.prepare import load, trial_data
from chronotune.export import write_winner
from chronotune.proposal import Proposal
from chronotune.repeats import FinalistSearcher
from chronotune.search import StudySearcher, result_of, scheduler
from chronotune.study import Result, TrialRecord
from chronotune.threads import LENT, Threads, lend, lent
from chronotune.train import train_recipe
from chronotune.trial import Assignment, TrialRun, Worker
from chronotune.tuner import _Recorder
from engine_parts import small_model
from sweep_parts import POINT, new_study, small_recipe


class Machine:
    """A clock, two cores, and what the driver lends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.idle = 0.0
        self.lent, self.set = 0, list[int]()
        monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(threads, "psutil", SimpleNamespace(cpu_times=lambda: SimpleNamespace(idle=self.idle)))
        monkeypatch.setattr(threads, "use_threads", self.set.append)
        self.threads, self.steps = Threads(1, lambda: self.lent), 0

    def step(self, seconds: float, idle: float) -> int:
        """One step of four windows, which takes so long and leaves so many core seconds unused; its threads."""
        self.threads.before_step(self.steps, 4 * self.steps)
        self.steps, self.now, self.idle = self.steps + 1, self.now + seconds, self.idle + idle
        return self.set[-1]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """One that nothing is lent on yet."""
    return Machine(monkeypatch)


def test_what_is_lent_and_idle_is_taken(machine: Machine) -> None:
    """In the middle of a slice, once a step has left a core idle; scores are measured with one's own."""
    assert [machine.step(1, idle=1) for _ in range(3)] == [1, 1, 1]
    machine.lent = 2
    assert [machine.step(1, idle=0.1), machine.step(1, idle=0.7), machine.step(1, idle=0.9)] == [1, 1, 1]
    assert [machine.step(0.6, idle=0), machine.step(0.6, idle=0)] == [2, 2]
    machine.threads.rest()
    assert machine.set[-1] == 1
    assert machine.step(0.6, idle=0) == 2
    machine.lent = 0
    assert machine.step(1, idle=1) == 1
    assert machine.threads.used == [(0, 1), (6, 2), (9, 1)]


def test_what_makes_it_slower_is_given_back(machine: Machine) -> None:
    """On cores that others use, too, threads wait for each other; one slow step among faster ones is borne."""
    machine.lent = 2
    assert machine.step(1, idle=1) == 1
    assert [machine.step(seconds, idle=0) for seconds in (2, 0.6, 0.6, 8)] == [2, 2, 2, 2]
    assert [machine.step(1, idle=2) for _ in range(3)] == [1, 1, 1]
    machine.threads.rest()
    assert machine.step(1, idle=2) == 1


def test_a_plan_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is lent."""
    chosen = list[int]()
    monkeypatch.setattr(threads, "use_threads", chosen.append)
    planned = Threads(1, lambda: 4, [(0, 1), (2, 3)])
    for step in range(4):
        planned.before_step(step, 4 * step)
    assert chosen == [1, 1, 3, 3]
    assert planned.used == [(0, 1), (2, 3)]


def test_a_loan_is_told_through_the_folder(tmp_path: Path) -> None:
    """And ends; a torn or missing file is no loan, and a folder that takes nothing ends nothing."""
    assert lent(tmp_path) == 0
    lend(tmp_path, 2)
    assert lent(tmp_path) == 2
    (tmp_path / LENT).write_text("")
    assert lent(tmp_path) == 0
    lend(tmp_path, 0)
    lend(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []
    lend(tmp_path / "nowhere", 2)


@pytest.fixture
def assignment(tmp_path: Path) -> Assignment:
    """Of the small recipe with a small random model."""
    small_model().save_pretrained(tmp_path / "weights")
    recipe = small_recipe(tmp_path / "weights")
    return Assignment(recipe, trial_data(load(recipe), recipe), tmp_path / "sweep")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """All loans are taken, whatever the machine does beside; torch's threads in each step."""
    monkeypatch.setattr(threads, "_IDLE", -1e9)
    monkeypatch.setattr(threads, "_PATIENCE", 1e9)
    found, real = list[int](), Threads.before_step

    def before_step(self: Threads, step: int, windows_seen: int) -> None:
        real(self, step, windows_seen)
        found.append(torch.get_num_threads())

    monkeypatch.setattr(Threads, "before_step", before_step)
    before = torch.get_num_threads()
    yield found
    torch.set_num_threads(before)


def from_step(step: int) -> Any:
    """A loan of a second thread from this call on."""
    calls = iter(range(10**6))
    return lambda: 2 if next(calls) >= step else 0


def test_a_trial_with_more_threads_is_repeated(assignment: Assignment, tmp_path: Path, taken: list[int]) -> None:
    """From its record in the study, and from its export, step by step; recipe, checkpoint and result hold them."""
    *_, last = TrialRun(Worker(assignment, lent=from_step(3)), 0, POINT).results()
    used = [[0, 1], [4, 2]]  # the third rung's first step, the last that was its own, sets the clock
    assert last["attributes"]["threads"] == used
    assert taken == [1] * 4 + [2] * (len(taken) - 4)
    record = TrialRecord(0, "complete", POINT, (Result(**result_of(last)),), None, None, None)
    steps, worker = list(taken), LastWorker(assignment)
    write_winner(worker, assignment, record, load(assignment.recipe).panel)
    (assignment.directory / "checkpoints/0000/27/weights.safetensors").unlink()
    taken.clear()
    worker.export_best(record, tmp_path / "lost")
    assert taken == steps
    recipe = load_recipe(assignment.directory / "winner/recipe.yaml")
    assert recipe.budget.threads == [tuple(pair) for pair in used]
    taken.clear()
    train_recipe(recipe, tmp_path / "again")
    assert taken == steps
    assert load_recipe(tmp_path / "again/recipe.yaml").budget.threads == recipe.budget.threads
    folders = (assignment.directory / "winner", tmp_path / "lost", tmp_path / "again")
    assert len({(folder / "model.safetensors").read_bytes() for folder in folders}) == 1


def test_a_resumed_trial_knows_its_threads(assignment: Assignment, taken: list[int]) -> None:
    """Those of before the kill too, and none that were used after its last checkpoint."""
    interrupted = TrialRun(Worker(assignment, lent=from_step(0)), 0, POINT).results()
    first = next(interrupted)
    assert first["attributes"]["threads"] == [[0, 1]]
    second = next(interrupted)
    assert second["attributes"]["threads"] == [[0, 1], [2, 2]]
    *_, last = TrialRun(Worker(assignment), 0, POINT).results()
    assert last["attributes"]["threads"] == [[0, 1], [2, 2], [3, 1]]
    assert set(taken[-4:]) == {1}


def test_one_s_own_threads_are_not_exported(assignment: Assignment, tmp_path: Path) -> None:
    """The profile says them."""
    space = assignment.recipe.search_space.collapse(POINT)
    train_recipe(assignment.recipe.model_copy(update={"search_space": space}), tmp_path / "plain")
    assert load_recipe(tmp_path / "plain/recipe.yaml").budget.threads is None


def test_the_last_trials_are_lent_idle_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one node without GPUs, four slots: nothing while another trial may come, then each its part."""
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 4}}])
    recipe, study, nothing = (
        small_recipe(),
        new_study(tmp_path),
        SimpleNamespace(config={}, error_file=None, trial_id="c"),
    )
    study.note("zero_shot", [])
    searcher = StudySearcher(study, recipe, scheduler(recipe), wanted=3, slots=lambda: 4)
    recorder = _Recorder(study, searcher, Assignment(recipe, nothing, tmp_path), lambda: None, lambda: None, None)  # type: ignore[arg-type]
    told = []
    for name in "abc":
        searcher.suggest(name)
        recorder.on_trial_start(0, [], nothing)
        told.append(lent(tmp_path))
    for name in "ab":
        searcher.on_trial_complete(name, {"failed": "a reason"})
        recorder.on_trial_complete(0, [], nothing)
        told.append(lent(tmp_path))
    assert told == [0, 0, 1, 2, 4]
    searcher.on_trial_complete("c", {"failed": "a reason"})
    recorder.on_trial_complete(0, [], nothing)
    assert lent(tmp_path) == 0


def test_finalists_that_are_left_alone_too(tmp_path: Path) -> None:
    """Nothing more comes once all repeats are handed out."""
    study = new_study(tmp_path)
    study.repeat(study.ask(Proposal(_sampler(), lambda _: POINT)).number, 1, into=study.finalists())
    searcher = FinalistSearcher(study, study.finalists(), [(0, 1), (0, 2)], 27, slots=lambda: 2)
    assert (searcher.more_may_come(), searcher.running) == (True, 0)
    searcher.suggest("a")
    searcher.suggest("b")
    assert (searcher.more_may_come(), searcher.running) == (False, 2)


def _sampler() -> Any:
    import optuna

    return optuna.samplers.RandomSampler(seed=0)
