"""The recorder between Ray Tune and the study. Without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chronotune.search import StudySearcher, scheduler
from chronotune.tuner import SPENT, _Recorder
from sweep_parts import new_study, small_recipe


@pytest.mark.parametrize(("minutes", "wants_more"), [(1.0, False), (3.0, True), (None, True)])
def test_a_sweep_whose_time_was_up_asks_for_nothing_when_it_is_resumed(
    tmp_path: Path, minutes: float | None, wants_more: bool
) -> None:
    """What its earlier drivers have spent counts before the first proposal, not only after it."""
    recipe, study = small_recipe(), new_study(tmp_path)
    study.note(SPENT, 100.0)
    searcher = StudySearcher(study, recipe, scheduler(recipe), wanted=4, slots=lambda: 1)
    nothing: Any = None
    _Recorder(study, searcher, nothing, lambda: None, lambda: None, minutes)
    assert searcher.wants_more() is wants_more
