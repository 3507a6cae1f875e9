"""One real sweep with its checkpoints on a real S3-compatible server: search, finalists, export, extension, removal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronotune.checkpoint import META, WEIGHTS, sha256
from chronotune.export import WEIGHTS as EXPORTED
from chronotune.study import Reading, read
from objects_parts import BUCKET, Objects
from test_sweep import ENVIRONMENT

pytest.importorskip("moto", reason="the S3-compatible server of these tests")

SETTINGS = (f"cluster.checkpoints=s3://{BUCKET}", "finalists.top=1", "finalists.seeds=3", "budget.trials=3")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's working directory."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def objects(place: Path) -> Iterator[Objects]:
    """A server with an empty bucket; where it is and its key are in the environment of commands only."""
    with Objects(place) as server:
        yield server


def chronotune(objects: Objects, place: Path, *arguments: str) -> str:
    """A command in an environment that leads to the server; its standard output."""
    command, environment = [sys.executable, "-m", "chronotune", *arguments], {**ENVIRONMENT, **objects.variables}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def reading(objects: Objects, place: Path) -> Reading:
    """The finished sweep, as its study has it."""
    options = [part for setting in SETTINGS for part in ("--set", setting)]
    chronotune(objects, place, "run", "smoke", "--dir", "sweeps/far", *options)
    return read(place / "sweeps/far")


def _kept(reading: Reading) -> list[str]:
    """The checkpoints whose weights stay: the best trial's, and the winning repeat's."""
    noted = reading.attributes["winner"]
    [median] = [repeat for repeat in reading.finalists if repeat.seed == noted["seed"]]
    return [one.best.attributes["checkpoint"] for one in (reading.winner, median) if one and one.best]


def test_the_bucket_has_all_that_stays_and_the_folder_nothing(reading: Reading, objects: Objects, place: Path) -> None:
    """Whole checkpoints of what may still be exported; no optimizer's state, none of Ray Tune's own files."""
    assert len(reading.finalists) == 3
    assert {trial.state for trial in reading.finalists} == {"complete"}
    assert reading.attributes["evaluation"]["test_openings"] == 1
    kept = objects.kept("far")
    for checkpoint in _kept(reading):
        assert {path.rpartition("/")[2] for path in kept if path.startswith(f"{checkpoint}/")} == {META, WEIGHTS}
    assert not [path for path in kept if path.startswith(".tune")]
    assert not (place / "sweeps/far/checkpoints").exists()


def test_an_export_needs_the_bucket_no_more(reading: Reading, objects: Objects, place: Path) -> None:
    """It trains again, in a folder, to the score of the winner, to the last digit."""
    chronotune(objects, place, "export", "sweeps/far", "--to", "models/far", "--force")
    printed = chronotune(objects, place, "train", "models/far/recipe.yaml", "--to", "models/again", "--json")
    assert json.loads(printed)["score"] == reading.attributes["winner"]["score"]
    assert sha256(place / "models/again" / EXPORTED) == reading.attributes["winner"]["tuned"]


def test_it_is_extended_and_then_removed(reading: Reading, objects: Objects, place: Path) -> None:
    """The last test: one more trial in the same place, then nothing is left in either."""
    chronotune(objects, place, "resume", "sweeps/far", "--trials", "+1")
    extended = read(place / "sweeps/far")
    assert len(extended.trials) == len(reading.trials) + 1
    assert extended.trials[: len(reading.trials)] == reading.trials
    assert objects.kept("far")
    chronotune(objects, place, "rm", "sweeps/far", "--yes")
    assert objects.kept("far") == []
    assert not (place / "sweeps/far").exists()
