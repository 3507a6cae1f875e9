"""Some of the faults of `faults.py`, at one trial at a time: the resumed sweep is the undisturbed one."""

from __future__ import annotations

import pytest
from moments import MOMENTS

import faults


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> faults.Ground:
    """Where all of them happen, beside one sweep that nobody disturbs."""
    return faults.Ground(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("name", ["report", "lock", "checkpoint", "worker"])
def test_a_sweep_survives(name: str, ground: faults.Ground) -> None:
    """Nothing lost, nothing twice, no MLflow run left running."""
    done = faults.endure(name, ground)
    assert done.kills == MOMENTS[name].times
    assert done.verdict == "identical", done
    assert (done.running, done.failed, done.mlflow) == (0, 0, "7 FINISHED")


def test_a_lost_training_of_a_finalist_is_made_good(ground: faults.Ground) -> None:
    """By the next driver, and what that averages has been kept for it."""
    done = faults.endure("lost-repeat", ground)
    assert done.verdict == "identical", done
    assert (done.running, done.failed, done.mlflow) == (0, 1, "1 FAILED, 7 FINISHED")
