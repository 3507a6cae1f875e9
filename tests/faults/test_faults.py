"""Some of the faults of `faults.py`, at one trial at a time: the resumed sweep is the undisturbed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import faults


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The trials of a sweep that nobody disturbs."""
    place = tmp_path_factory.mktemp("whole")
    assert faults.sweep(place, 1) == 0, (place / "printed.txt").read_text()
    return faults.table(place)


@pytest.mark.parametrize("name", ["report", "lock", "checkpoint", "worker"])
def test_a_sweep_survives(name: str, whole: list[Any], tmp_path: Path) -> None:
    """Nothing lost, nothing twice, no MLflow run left running."""
    done = faults.at(name, tmp_path, whole)
    assert done.kills == faults.MOMENTS[name].times
    assert done.same, done
    assert done.mlflow == "5 FINISHED"
