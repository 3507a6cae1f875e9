"""A driver that dies while it draws a trial's parameters: the next one draws what it would have drawn."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest

from chronotune import sampler as proposing
from chronotune.study import Study
from search_parts import FakeTune, table
from sweep_parts import new_study, small_recipe

FIRST = [{"from": "a", "values": {}}, {"from": "b", "values": {"mode": "lora", "windows": 2}}]
"""The second trial is given a part of its point."""

IMPORT = {
    "from": "an earlier sweep",
    "state": "complete",
    "values": {"learning_rate": 5e-3, "windows": 2, "accumulation": 1, "context_length": 48, "covariates": "all"},
    "results": [[3, 0.9], [27, 0.2]],
}


@pytest.mark.parametrize("imports", [False, True])
@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
@pytest.mark.parametrize("kept", [1, 2, 3, 4, 5, 6])
def test_every_trial_is_drawn_as_in_the_unbroken_sweep(
    tmp_path: Path, kept: int, sampler: str, imports: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though of each only `kept` parameters were written, and a sampler begins anew with each driver."""
    recipe = small_recipe(budget={"trials": 5, "windows": 27}, search={"sampler": sampler, "startup_trials": 2})
    for name in ("unbroken", "broken"):
        (tmp_path / name).mkdir()
        study = new_study(tmp_path / name, recipe)
        study.note("first", FIRST)
        study.note("imports", [IMPORT] if imports else [])
    unbroken = Study.reopen(tmp_path / "unbroken")
    FakeTune(unbroken, recipe).run()
    for number in range(5):
        _die_while_drawing(tmp_path / "broken", recipe, number, kept, monkeypatch)
        FakeTune(Study.reopen(tmp_path / "broken"), recipe, wanted=number + 1).run()
    assert table(Study.reopen(tmp_path / "broken")) == table(unbroken)


def _die_while_drawing(folder: Path, recipe: Any, number: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drive the sweep until `kept` parameters of trial `number` are in the study."""
    study, drawn = Study.reopen(folder), proposing._suggest

    def killed(trial: optuna.Trial, *rest: Any) -> Any:
        value = drawn(trial, *rest)
        if len(study.trials) > number and len(study._frozen(number).params) == kept:
            raise KeyboardInterrupt
        return value

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(proposing, "_suggest", killed)
        FakeTune(study, recipe, wanted=number + 1).run()
    cut_off = Study.reopen(folder)
    assert len(cut_off._frozen(number).params) >= kept
    assert (cut_off.trial(number).hyperparameters is None) == (len(cut_off._frozen(number).params) == kept)
