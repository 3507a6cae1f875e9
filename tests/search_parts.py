"""Ray Tune's part without Ray: what the tests of the search drive it with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from ray.tune.search import Searcher

from chronotune.config.recipe import Recipe
from chronotune.records import BUDGET, OBJECTIVE
from chronotune.search import LAST, StudySearcher, scheduler
from chronotune.study import Study
from sweep_parts import result

STEPPED = {
    "learning_rate": {"type": "choice", "values": [1e-3, 1e-2]},
    "windows": {"type": "int", "low": 2, "high": 4, "step": 2},
    "context_length": 48,
    "mode": {"type": "choice", "values": ["full", "lora"]},
    "lora_rank": {"type": "choice", "values": [2, 4], "when": {"mode": "lora"}},
}
"""A space of 2 x 2 x (1 + 2) points."""


FIRST_POINTS = [
    {"from": "a", "values": {"mode": "lora", "lora_rank": 4, "learning_rate": 2e-3}},
    {"from": "b", "values": {"mode": "full", "windows": 2}},
    {"from": "c", "values": {"mode": "lora"}},
]
"""Points that first trials take, as a study holds them."""


def imports_of_a_sweep(count: int) -> list[dict[str, Any]]:
    """Results of an earlier sweep: best where the learning rate is about 5e-3 with LoRA of rank 4."""
    rates = [10 ** (-4 + 2 * n / (count - 1)) for n in range(count)]
    fixed = {"windows": 2, "accumulation": 1, "context_length": 48, "covariates": "all", "mode": "lora", "lora_rank": 4}
    return [
        {
            "from": f"trial {n}",
            "state": "complete" if n % 2 else "pruned",
            "values": {"learning_rate": rate, **fixed},
            "results": [[3, 1 + abs(math.log10(rate / 5e-3))], [27 if n % 2 else 9, abs(math.log10(rate / 5e-3))]],
        }
        for n, rate in enumerate(rates)
    ]


class FakeTune:
    """Ray Tune's part without Ray: runs one trial after the other on a made-up learning curve."""

    def __init__(self, study: Study, recipe: Recipe, wanted: int | None = None) -> None:
        self.study, self.recipe, self.asha = study, recipe, scheduler(recipe)
        self.searcher = StudySearcher(study, recipe, self.asha, wanted=wanted or recipe.budget.trials, slots=lambda: 1)
        self.started, self.untold = 0, False
        self.curve: Callable[[dict[str, Any], int], float] = _curve
        """The score of a point after so many windows."""
        self.fails: Callable[[dict[str, Any]], bool] = lambda _: False
        """Whether a point fails before its first result."""
        self.failing: set[int] = set()
        """Numbers of the trials that fail after their first rung."""

    def suggest(self) -> tuple[str, Any]:
        """The next proposal under a new id."""
        self.started += 1
        trial_id = f"t{self.started}"
        return trial_id, self.searcher.suggest(trial_id)

    def begin(self) -> SimpleNamespace:
        """The next trial, as Ray Tune has it, in the scheduler."""
        trial_id, proposal = self.suggest()
        trial = SimpleNamespace(trial_id=trial_id, config=proposal)
        self.asha.on_trial_add(None, trial)
        return trial

    def report(self, trial: SimpleNamespace, rung: int, score: float) -> str:
        """A result, into the scheduler and then into the study; what the scheduler decides."""
        decision = str(self.asha.on_trial_result(None, trial, {BUDGET: rung, OBJECTIVE: score}))
        reported, is_last = result(rung, score), decision == "STOP" or rung == self.recipe.rungs[-1]
        attributes = {**reported.attributes, LAST: is_last}
        self.study.record(trial.config["number"], replace(reported, attributes=attributes))
        return decision

    def run(self, until: int | None = None, untold: bool = False) -> None:
        """Run proposals to their ends.

        `until` cuts off like a SIGKILL after so many results; with `untold`, before the study is told of an end that
        the last of them brought.
        """
        self.untold = untold
        left = math.inf if until is None else until
        while True:
            trial_id, proposal = self.suggest()
            if proposal == Searcher.FINISHED:
                return
            if proposal.get("zero_shot"):
                self.study.note("zero_shot", [])
                self.searcher.on_trial_complete(trial_id, {"zero_shot": []})
                continue
            left = self._train(trial_id, proposal, left)
            if left <= 0:
                return

    def _train(self, trial_id: str, proposal: dict[str, Any], left: float) -> float:
        trial = SimpleNamespace(trial_id=trial_id, config=proposal)
        self.asha.on_trial_add(None, trial)
        past = [r.windows_seen for r in self.study.trial(proposal["number"]).results]
        if self.fails(proposal["hyperparameters"]):
            self.searcher.on_trial_complete(trial_id, {"failed": "out of memory"})
            return left
        for rung in self.recipe.rungs:
            if rung in past[:-1]:  # a worker reports what its checkpoint holds once more
                continue
            if left <= 0:
                return 0
            if proposal["number"] in self.failing and rung > self.recipe.rungs[0]:
                self.searcher.on_trial_complete(trial_id, {"failed": "the loss was NaN"})
                return left
            left -= rung not in past
            decision = self.report(trial, rung, self.curve(proposal["hyperparameters"], rung))
            if decision == "STOP" or rung == self.recipe.rungs[-1]:
                break
        if left <= 0 and self.untold:
            return 0
        self.searcher.on_trial_complete(trial_id, {BUDGET: rung})
        return left


def _curve(point: dict[str, Any], windows: int) -> float:
    best = abs(math.log10(point["learning_rate"]) + 3) + 0.1 * (point["mode"] == "lora") + point["context_length"] / 1e3
    return float(best + 1 / windows)


def table(study: Study) -> list[tuple[Any, ...]]:
    """Everything of the trials but their times."""
    return [(t.number, t.state, t.hyperparameters, t.results) for t in study.trials]
