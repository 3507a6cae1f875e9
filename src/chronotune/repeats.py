"""Train the finalists again on Ray Tune: trials of a study of their own, resumed like those of the search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from chronotune.cluster import slots_lately
from chronotune.finalists import averaged, choose, is_lost, needed, plan, seeds
from chronotune.records import FINALISTS
from chronotune.search import InTurn, RecordedSearcher
from chronotune.stores import prune_all_but
from chronotune.study import Study, TrialRecord
from chronotune.trial import Assignment
from chronotune.tuner import drive


def run_finalists(study: Study, assignment: Assignment, on_record: Callable[[], None]) -> None:
    """Choose the finalists, if the recipe wants any, and train what is missing of them; returns when all have ended.

    Args:
        study: The searched one, open for writing.
        assignment: What every worker gets.
        on_record: Called after every change.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the next call goes on.
    """
    recipe = assignment.recipe
    if recipe.finalists.top == 0:
        return
    repeats = study.finalists()
    noted = study.attribute(FINALISTS) or {}
    chosen = choose(study.trials, recipe.finalists.top, noted.get("trials", ()))
    wanted = {"trials": chosen, "seeds": noted.get("seeds") or seeds(recipe.seed, recipe.finalists.seeds)}
    if wanted != noted:
        study.note(FINALISTS, wanted)
    searcher = FinalistSearcher(study, repeats, plan(wanted), recipe.rungs[-1], slots_lately(recipe.cluster))

    def tidy() -> None:
        reading = study.read()
        kept = needed(reading) | (averaged(reading) if recipe.evaluation.blends else set())
        prune_all_but(assignment.store, reading.finalists, kept)

    if searcher.wants_more():
        drive(repeats, assignment, searcher, InTurn(), on_record, tidy)
    tidy()  # a driver that was killed after the last had ended has not


class FinalistSearcher(RecordedSearcher):
    """Hands out the repeats that an earlier driver left running, then those that are not begun yet or were lost."""

    def __init__(
        self,
        searched: Study,
        repeats: Study,
        wanted: Sequence[tuple[int, int]],
        full_budget: int,
        slots: Callable[[], int],
    ) -> None:
        super().__init__(repeats, full_budget)
        self._searched, self._slots = searched, slots
        begun = {(repeat.of, repeat.seed) for repeat in repeats.trials if not is_lost(repeat)}
        self._unfinished += [repeat.number for repeat in repeats.trials if repeat.state == "running"]
        self._missing = [pair for pair in wanted if pair not in begun]

    def close(self) -> None:
        """Propose nothing more: the next driver does."""
        self._unfinished, self._missing = [], []

    def wants_more(self) -> bool:
        """Whether a repeat is left to be handed out."""
        return bool(self._unfinished or self._missing)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next repeat; None while every slot is taken; FINISHED when all were handed out."""
        if len(self._numbers) >= self._slots():
            return None
        repeat = self._next()
        if repeat is None:
            return str(self.FINISHED)
        assert repeat.hyperparameters is not None
        self._numbers[trial_id] = repeat.number
        return {"number": repeat.number, "hyperparameters": repeat.hyperparameters.model_dump(), "seed": repeat.seed}

    def _next(self) -> TrialRecord | None:
        while self._unfinished:
            repeat = self._study.trial(self._unfinished.pop(0))
            if repeat.windows_seen < self._full_budget:
                return repeat
            self._study.finish(repeat.number, self._full_budget)
        return self._searched.repeat(*self._missing.pop(0), into=self._study) if self._missing else None
