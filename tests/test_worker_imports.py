"""What a worker's process imports before it can train: each library costs every slot time at the start of a sweep."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from chronotune import collector
from chronotune.config.space import Hyperparameters
from chronotune.data.prepare import load, trial_data
from chronotune.trial import Assignment
from engine_parts import small_model
from sweep_parts import POINT, small_recipe

LORA = POINT.model_copy(update={"mode": "lora", "lora_rank": 2})

DRIVERS = (
    "optuna",
    "sqlalchemy",
    "polars",
    "mlflow",
    "plotly",
    "sklearn",
    "typer",
    "chronotune.search",
    "chronotune.study",
)
"""What only the driver needs."""


def loaded(code: str, *arguments: Path) -> list[str]:
    """Which of the driver's libraries a fresh interpreter has after `code`, in which they are looked for in the end."""
    code = f"import sys\n{code}\nprint('loaded:', *[name for name in {DRIVERS} if name in sys.modules])"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("point", [POINT, LORA], ids=["full", "lora"])
def test_a_worker_imports_nothing_of_the_drivers(tmp_path: Path, point: Hyperparameters) -> None:
    """From the assignment's arrival to the first result: the zero-shot scores, training, validation, a checkpoint."""
    small_model().save_pretrained(tmp_path / "weights")
    recipe = small_recipe(tmp_path / "weights")
    sent = tmp_path / "sent"
    sent.write_bytes(pickle.dumps((Assignment(recipe, trial_data(load(recipe), recipe), tmp_path), point)))
    code = (
        "import pickle, pathlib\n"
        "assignment, point = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "from chronotune.again import LastWorker\n"
        "from chronotune.trial import FineTuneTrial, TrialRun\n"
        "worker = LastWorker(assignment)\n"
        "worker.zero_shot()\n"
        "next(TrialRun(worker, 0, point).results())\n"
    )
    assert loaded(code, sent) == []


def test_the_check_would_see_them() -> None:
    """What a driver imports is found."""
    assert {"optuna", "sqlalchemy", "polars", "chronotune.study"} <= set(loaded("import chronotune.sweep"))


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_waits_for_imports(before: bool) -> None:
    """Inside it is off; afterwards it is as it was, and passes over what came."""
    came: list[list[int]] = []
    try:
        gc.enable() if before else gc.disable()
        with collector.importing():
            assert not gc.isenabled()
            came.append([])
        assert gc.isenabled() is before
        assert not any(one is came[0] for one in gc.get_objects())
        with pytest.raises(ImportError), collector.importing():
            raise ImportError
        assert gc.isenabled() is before
    finally:
        gc.enable()
